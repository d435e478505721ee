package pod

import (
	"fmt"
	"strconv"
	"strings"

	ociv1 "github.com/google/go-containerregistry/pkg/v1"
	v1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/node/container"
)

// secure sets the user, groups and capabilities of a process from the security contexts of the container and, where that says
// nothing, of the pod. The error is the message of CreateContainerConfigError.
func secure(p *container.Process, pod *v1.Pod, c *v1.Container, config ociv1.Config) error {
	podSC, sc := pod.Spec.SecurityContext, c.SecurityContext
	if podSC == nil {
		podSC = &v1.PodSecurityContext{}
	}
	if sc == nil {
		sc = &v1.SecurityContext{}
	}
	user, group, nonRoot := first(sc.RunAsUser, podSC.RunAsUser), first(sc.RunAsGroup, podSC.RunAsGroup),
		first(sc.RunAsNonRoot, podSC.RunAsNonRoot)
	if nonRoot != nil && *nonRoot {
		if err := checkNonRoot(pod, c, user, config.User); err != nil {
			return err
		}
	}
	p.User = config.User
	if user != nil {
		p.User = strconv.FormatInt(*user, 10)
	}
	p.GID = group
	p.SupplementalGroups = append(p.SupplementalGroups, podSC.SupplementalGroups...)
	if podSC.FSGroup != nil {
		p.SupplementalGroups = append(p.SupplementalGroups, *podSC.FSGroup)
	}
	if sc.Capabilities != nil {
		for _, name := range sc.Capabilities.Add {
			p.AddCapabilities = append(p.AddCapabilities, capability(name))
		}
		for _, name := range sc.Capabilities.Drop {
			p.DropCapabilities = append(p.DropCapabilities, capability(name))
		}
	}
	p.NoNewPrivileges = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
	return nil
}

func capability(name v1.Capability) string {
	return strings.TrimPrefix(strings.ToUpper(string(name)), "CAP_")
}

func first[T any](values ...*T) *T {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}

// checkNonRoot refuses a container that must not run as root and would, or whose user cannot be told.
func checkNonRoot(pod *v1.Pod, c *v1.Container, user *int64, imageUser string) error {
	where := fmt.Sprintf("(pod: %q, container: %s)", describe(pod), c.Name)
	if user != nil {
		if *user == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
		}
		return nil
	}
	name, _, _ := strings.Cut(imageUser, ":")
	uid, err := strconv.ParseInt(name, 10, 64)
	switch {
	case name == "" || err == nil && uid == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", name, where)
	default:
		return nil
	}
}

func privileged(c *v1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
}

func readOnlyRoot(c *v1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.ReadOnlyRootFilesystem != nil && *c.SecurityContext.ReadOnlyRootFilesystem
}
