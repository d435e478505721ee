package embedded

import (
	"bytes"
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/weft-dev/weft/embedded/pki"
)

// writeKubeconfigs writes the administrator's kubeconfig, which contains its certificates so that it can be copied elsewhere, and
// those of controllers and scheduler, which name files so that a renewal reaches the running process.
func (c *ControlPlane) writeKubeconfigs() error {
	admin := c.newKubeconfig(c.opts.Instance.Name, c.files.Admin)
	if err := embed(admin); err != nil {
		return err
	}
	for path, config := range map[string]*api.Config{
		c.opts.Instance.Kubeconfig():       admin,
		c.kubeconfig("controller-manager"): c.newKubeconfig("controller-manager", c.files.ControllerManager),
		c.kubeconfig("scheduler"):          c.newKubeconfig("scheduler", c.files.Scheduler),
	} {
		if err := writeKubeconfig(path, config); err != nil {
			return err
		}
	}
	return nil
}

// kubeconfig is the path of the kubeconfig of a part of the control plane.
func (c *ControlPlane) kubeconfig(part string) string {
	return c.opts.Instance.Path("pki", part+".kubeconfig")
}

func (c *ControlPlane) newKubeconfig(name string, client pki.Pair) *api.Config {
	config := api.NewConfig()
	config.Clusters[name] = &api.Cluster{Server: "https://" + c.Address(), CertificateAuthority: c.files.CA.Cert}
	config.AuthInfos[name] = &api.AuthInfo{ClientCertificate: client.Cert, ClientKey: client.Key}
	config.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name, Namespace: "default"}
	config.CurrentContext = name
	return config
}

// embed replaces the names of files by their contents.
func embed(config *api.Config) error {
	if err := api.FlattenConfig(config); err != nil {
		return fmt.Errorf("embedding certificates in kubeconfig: %w", err)
	}
	return nil
}

// writeKubeconfig leaves a file that is already right alone, so that a watch on it stays quiet. The mode is set in any case.
func writeKubeconfig(path string, config *api.Config) error {
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encoding kubeconfig: %w", err)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return os.Chmod(path, 0o600)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("writing kubeconfig: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("writing kubeconfig: %w", err)
	}
	return nil
}
