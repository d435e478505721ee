package pod

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// maxHostname is the longest name that Linux takes.
const maxHostname = 63

// hostname is the name that a pod's containers see.
func hostname(pod *v1.Pod, domain string) string {
	if pod.Spec.HostnameOverride != nil {
		return *pod.Spec.HostnameOverride
	}
	name := shortHostname(pod)
	if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN {
		if d := hostDomain(pod, domain); d != "" {
			return name + "." + d
		}
	}
	return name
}

func shortHostname(pod *v1.Pod) string {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if len(name) > maxHostname {
		name = strings.TrimRight(name[:maxHostname], "-.")
	}
	return name
}

// hostDomain is the domain of a pod that names a subdomain, else empty.
func hostDomain(pod *v1.Pod, domain string) string {
	if pod.Spec.Subdomain == "" {
		return ""
	}
	return pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + domain
}

// setHostname names the machine in a UTS namespace. It enters the namespace on a thread that is not used again afterwards,
// because a thread that could not leave it would show the wrong name to whoever came next.
func setHostname(namespace, name string) error {
	if namespace == "" {
		return nil
	}
	f, err := os.Open(namespace)
	if err != nil {
		return fmt.Errorf("opening the UTS namespace: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS); err != nil {
			done <- fmt.Errorf("entering the UTS namespace: %w", err)
			return
		}
		if err := unix.Sethostname([]byte(name)); err != nil {
			done <- fmt.Errorf("setting the host name %q: %w", name, err)
			return
		}
		done <- nil
	}()
	return <-done
}
