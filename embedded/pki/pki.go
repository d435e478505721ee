package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// How long certificates are valid. A leaf is renewed when a third of its life is left, so a machine that is on once in four months
// never sees an expired one.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	renewBefore   = leafLife / 3
	// clockSkew is how far notBefore lies in the past, for virtual machines whose clock is set back after resuming.
	clockSkew = time.Hour
)

// Options say what the certificates are for.
type Options struct {
	// Dir is the directory of the files. It is made with mode 0700.
	Dir string
	// NodeName is the name of the machine's Node.
	NodeName string
	// Addresses are the addresses besides 127.0.0.1 under which the API server is reached.
	Addresses []netip.Addr
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Pair is the paths of a PEM certificate and of its key.
type Pair struct {
	Cert, Key string
}

// Files are the paths of everything that Ensure makes.
type Files struct {
	// CA signs all other pairs but FrontProxyClient. Its certificate is what clients trust.
	CA Pair
	// FrontProxyCA signs FrontProxyClient, by which the API server proves itself to extension API servers.
	FrontProxyCA     Pair
	FrontProxyClient Pair
	// APIServer is the serving certificate of the API server.
	APIServer Pair
	// KubeletClient is what the API server presents to the node agent.
	KubeletClient Pair
	// Kubelet is the serving certificate of the node agent.
	Kubelet Pair
	// Admin is a client in the group system:masters.
	Admin             Pair
	ControllerManager Pair
	Scheduler         Pair
	// Node is the client certificate of the node agent, "system:node:<name>".
	Node Pair
	// ServiceAccountKey signs service account tokens.
	ServiceAccountKey string
}

// leaf is one certificate to be kept valid.
type leaf struct {
	pair    Pair
	subject pkix.Name
	usage   x509.ExtKeyUsage
	ips     []net.IP
	names   []string
}

// Ensure makes what is missing and renews what is about to expire, no longer matches the options or was signed by another authority.
// It changes nothing else and may be called at any time.
func Ensure(opts Options) (Files, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	files := layout(opts.Dir)
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return Files{}, fmt.Errorf("making directory of certificates: %w", err)
	}
	if err := ensureKey(files.ServiceAccountKey); err != nil {
		return Files{}, err
	}
	ca, err := ensureAuthority(files.CA, "weft-ca", opts.Now())
	if err != nil {
		return Files{}, err
	}
	frontProxyCA, err := ensureAuthority(files.FrontProxyCA, "weft-front-proxy-ca", opts.Now())
	if err != nil {
		return Files{}, err
	}
	for _, l := range leaves(files, opts) {
		if err := ca.ensure(l, opts.Now()); err != nil {
			return Files{}, err
		}
	}
	frontProxy := leaf{pair: files.FrontProxyClient, subject: pkix.Name{CommonName: "front-proxy-client"}, usage: x509.ExtKeyUsageClientAuth}
	if err := frontProxyCA.ensure(frontProxy, opts.Now()); err != nil {
		return Files{}, err
	}
	return files, nil
}

// layout names the files as kubeadm does, for those who know its directory.
func layout(dir string) Files {
	pair := func(name string) Pair {
		return Pair{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	}
	return Files{
		CA:                pair("ca"),
		FrontProxyCA:      pair("front-proxy-ca"),
		FrontProxyClient:  pair("front-proxy-client"),
		APIServer:         pair("apiserver"),
		KubeletClient:     pair("apiserver-kubelet-client"),
		Kubelet:           pair("kubelet"),
		Admin:             pair("admin"),
		ControllerManager: pair("controller-manager"),
		Scheduler:         pair("scheduler"),
		Node:              pair("node"),
		ServiceAccountKey: filepath.Join(dir, "service-account.key"),
	}
}

func leaves(files Files, opts Options) []leaf {
	client := func(pair Pair, name string, groups ...string) leaf {
		return leaf{pair: pair, subject: pkix.Name{CommonName: name, Organization: groups}, usage: x509.ExtKeyUsageClientAuth}
	}
	server := func(pair Pair, name string, ips []net.IP, names ...string) leaf {
		return leaf{pair: pair, subject: pkix.Name{CommonName: name}, usage: x509.ExtKeyUsageServerAuth, ips: ips, names: names}
	}
	ips := []net.IP{net.IPv4(127, 0, 0, 1).To4()}
	for _, a := range opts.Addresses {
		ips = append(ips, a.AsSlice())
	}
	return []leaf{
		server(files.APIServer, "kube-apiserver", ips, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"),
		server(files.Kubelet, "system:node:"+opts.NodeName, ips, "localhost", opts.NodeName),
		client(files.KubeletClient, "kube-apiserver-kubelet-client", "system:masters"),
		client(files.Admin, "weft-admin", "system:masters"),
		// Upstream gives each controller a service account of its own. They are parts of one process here, so a group says the same.
		client(files.ControllerManager, "system:kube-controller-manager", "system:masters"),
		client(files.Scheduler, "system:kube-scheduler"),
		client(files.Node, "system:node:"+opts.NodeName, "system:nodes"),
	}
}
