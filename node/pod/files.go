package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// The files that all containers of a pod share, in the pod's directory.
const (
	hostsFile    = "etc-hosts"
	hostnameFile = "hostname"
	resolvFile   = "resolv.conf"

	hostHosts  = "/etc/hosts"
	hostResolv = "/etc/resolv.conf"
)

// writeFiles writes the shared files. They are written in place when they exist, because containers have them mounted.
func (w *Worker) writeFiles(pod *v1.Pod, ip string) error {
	hosts := hostsContent(pod, ip, w.o.ClusterDomain)
	if pod.Spec.HostNetwork {
		own, err := os.ReadFile(hostHosts)
		if err != nil {
			return fmt.Errorf("reading the hosts of this machine: %w", err)
		}
		hosts = string(own) + aliases(pod.Spec.HostAliases)
	}
	machine, err := os.ReadFile(hostResolv)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("reading the resolver configuration of this machine: %w", err)
	}
	files := map[string]string{
		hostsFile: hosts, hostnameFile: hostname(pod, w.o.ClusterDomain) + "\n",
		resolvFile: resolvContent(pod, w.o.HostIP, w.o.ClusterDomain, string(machine)),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

func hostsContent(pod *v1.Pod, ip, domain string) string {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
	name := shortHostname(pod)
	if d := hostDomain(pod, domain); d != "" {
		fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, name, d, name)
	} else {
		fmt.Fprintf(&b, "%s\t%s\n", ip, name)
	}
	b.WriteString(aliases(pod.Spec.HostAliases))
	return b.String()
}

func aliases(list []v1.HostAlias) string {
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n# Entries added by HostAliases.\n")
	for _, a := range list {
		fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	return b.String()
}

// resolvContent is the resolver configuration of a pod; machine is that of this machine, for pods that want it.
func resolvContent(pod *v1.Pod, nameserver, domain, machine string) string {
	r := resolver{}
	switch policy := pod.Spec.DNSPolicy; {
	case policy == v1.DNSNone:
	case policy == v1.DNSDefault, policy != v1.DNSClusterFirstWithHostNet && pod.Spec.HostNetwork:
		r = parseResolver(machine)
	default:
		r.nameservers = []string{nameserver}
		r.searches = []string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}
		r.options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		r.nameservers = unique(append(r.nameservers, c.Nameservers...))
		r.searches = unique(append(r.searches, c.Searches...))
		for _, o := range c.Options {
			r.setOption(o)
		}
	}
	return r.String()
}

// resolver is a resolv.conf.
type resolver struct{ nameservers, searches, options []string }

func parseResolver(content string) resolver {
	var r resolver
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.nameservers = append(r.nameservers, fields[1])
		case "search":
			r.searches = fields[1:]
		case "options":
			r.options = append(r.options, fields[1:]...)
		}
	}
	return r
}

// setOption adds an option or replaces the one of the same name.
func (r *resolver) setOption(o v1.PodDNSConfigOption) {
	r.options = slices.DeleteFunc(r.options, func(s string) bool {
		name, _, _ := strings.Cut(s, ":")
		return name == o.Name
	})
	if o.Value != nil && *o.Value != "" {
		r.options = append(r.options, o.Name+":"+*o.Value)
		return
	}
	r.options = append(r.options, o.Name)
}

// String is the content of the file.
func (r resolver) String() string {
	var b strings.Builder
	for _, n := range r.nameservers {
		b.WriteString("nameserver " + n + "\n")
	}
	if len(r.searches) > 0 {
		b.WriteString("search " + strings.Join(r.searches, " ") + "\n")
	}
	if len(r.options) > 0 {
		b.WriteString("options " + strings.Join(r.options, " ") + "\n")
	}
	return b.String()
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
