package pod

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ociv1 "github.com/google/go-containerregistry/pkg/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/image"
)

func TestCommand(t *testing.T) {
	t.Parallel()
	img := image.Image{Config: ociv1.Config{Entrypoint: []string{"/entry"}, Cmd: []string{"default"}}}
	for _, tt := range []struct {
		name          string
		command, args []string
		want          []string
	}{
		{name: "the image's", want: []string{"/entry", "default"}},
		{name: "own arguments", args: []string{"a"}, want: []string{"/entry", "a"}},
		{name: "own command drops the image's arguments", command: []string{"/own"}, want: []string{"/own"}},
		{name: "both own, expanded", command: []string{"/own"}, args: []string{"$(A)", "$(B)", "$$(A)"}, want: []string{"/own", "1", "$(B)", "$(A)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := command(&v1.Container{Command: tt.command, Args: tt.args}, img, []string{"A=1"})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("command (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResources(t *testing.T) {
	t.Parallel()
	list := func(cpu, memory string) v1.ResourceList {
		out := v1.ResourceList{}
		if cpu != "" {
			out[v1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			out[v1.ResourceMemory] = resource.MustParse(memory)
		}
		return out
	}
	for _, tt := range []struct {
		name string
		in   v1.ResourceRequirements
		want container.Resources
	}{
		{name: "nothing", want: container.Resources{CPUShares: 2, OOMScoreAdj: 1000}},
		{name: "request", in: v1.ResourceRequirements{Requests: list("500m", "256Mi")}, want: container.Resources{CPUShares: 512, OOMScoreAdj: 750}},
		{
			name: "limit stands in for the request", in: v1.ResourceRequirements{Limits: list("2", "")},
			want: container.Resources{CPUShares: 2048, CPUQuota: 200000, CPUPeriod: 100000, OOMScoreAdj: 999},
		},
		{
			name: "guaranteed", in: v1.ResourceRequirements{Limits: list("1", "1Gi"), Requests: list("1", "1Gi")},
			want: container.Resources{CPUShares: 1024, CPUQuota: 100000, CPUPeriod: 100000, MemoryLimit: 1 << 30, OOMScoreAdj: -997},
		},
		{
			name: "tiny limit", in: v1.ResourceRequirements{Limits: list("1m", "")},
			want: container.Resources{CPUShares: 2, CPUQuota: 1000, CPUPeriod: 100000, OOMScoreAdj: 999},
		},
		{name: "all of the memory", in: v1.ResourceRequirements{Requests: list("", "1Gi")}, want: container.Resources{CPUShares: 2, OOMScoreAdj: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := testPod(func(p *v1.Pod) { p.Spec.Containers[0].Resources = tt.in })
			if diff := cmp.Diff(tt.want, resources(p, &p.Spec.Containers[0], 1<<30)); diff != "" {
				t.Errorf("resources (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSecure(t *testing.T) {
	t.Parallel()
	const where = `(pod: "hello_default(uid-1)", container: app)`
	for _, tt := range []struct {
		name      string
		pod       *v1.PodSecurityContext
		container *v1.SecurityContext
		imageUser string
		want      container.Process
		wantErr   string
	}{
		{name: "the image's user", imageUser: "app:staff", want: container.Process{User: "app:staff"}},
		{
			name:      "the container's before the pod's",
			pod:       &v1.PodSecurityContext{RunAsUser: new(int64(1)), RunAsGroup: new(int64(2)), SupplementalGroups: []int64{3}, FSGroup: new(int64(4))},
			container: &v1.SecurityContext{RunAsUser: new(int64(5))}, imageUser: "app",
			want: container.Process{User: "5", GID: new(int64(2)), SupplementalGroups: []int64{3, 4}},
		},
		{
			name: "capabilities and privileges",
			container: &v1.SecurityContext{
				AllowPrivilegeEscalation: new(false),
				Capabilities:             &v1.Capabilities{Add: []v1.Capability{"CAP_SYS_ADMIN", "net_admin"}, Drop: []v1.Capability{"ALL"}},
			},
			want: container.Process{NoNewPrivileges: true, AddCapabilities: []string{"SYS_ADMIN", "NET_ADMIN"}, DropCapabilities: []string{"ALL"}},
		},
		{
			name: "must not be root and is", pod: &v1.PodSecurityContext{RunAsNonRoot: new(true)},
			wantErr: "container has runAsNonRoot and image will run as root " + where,
		},
		{
			name: "must not be root and cannot be told", pod: &v1.PodSecurityContext{RunAsNonRoot: new(true)}, imageUser: "app",
			wantErr: "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root " + where,
		},
		{
			name: "must not be root and asks for it", pod: &v1.PodSecurityContext{RunAsNonRoot: new(true)},
			container: &v1.SecurityContext{RunAsUser: new(int64(0))},
			wantErr:   "container's runAsUser breaks non-root policy " + where,
		},
		{name: "must not be root and is not", pod: &v1.PodSecurityContext{RunAsNonRoot: new(true)}, imageUser: "65532:65532", want: container.Process{User: "65532:65532"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := testPod(func(p *v1.Pod) { p.Spec.SecurityContext, p.Spec.Containers[0].SecurityContext = tt.pod, tt.container })
			var got container.Process
			err := secure(&got, p, &p.Spec.Containers[0], ociv1.Config{User: tt.imageUser})
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr {
					t.Errorf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("process (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStopSignal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, image string
		spec        *v1.Signal
		want        int
	}{
		{name: "default", want: 0},
		{name: "name", image: "SIGQUIT", want: 3},
		{name: "short name", image: "int", want: 2},
		{name: "number", image: "10", want: 10},
		{name: "own", image: "SIGQUIT", spec: new(v1.SIGUSR1), want: 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &v1.Container{Lifecycle: &v1.Lifecycle{StopSignal: tt.spec}}
			if got := stopSignal(c, image.Image{Config: ociv1.Config{StopSignal: tt.image}}); got != tt.want {
				t.Errorf("signal %d, want %d", got, tt.want)
			}
		})
	}
}

func TestResolvContent(t *testing.T) {
	t.Parallel()
	const machine = "# comment\nnameserver 192.0.2.1\nsearch corp.example\noptions timeout:1\n"
	const cluster = "nameserver 10.9.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
	const own = "nameserver 192.0.2.1\nsearch corp.example\noptions timeout:1\n"
	for _, tt := range []struct {
		name string
		spec v1.PodSpec
		want string
	}{
		{name: "cluster first", spec: v1.PodSpec{DNSPolicy: v1.DNSClusterFirst}, want: cluster},
		{name: "default", spec: v1.PodSpec{DNSPolicy: v1.DNSDefault}, want: own},
		{name: "host network", spec: v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, HostNetwork: true}, want: own},
		{name: "host network with cluster names", spec: v1.PodSpec{DNSPolicy: v1.DNSClusterFirstWithHostNet, HostNetwork: true}, want: cluster},
		{name: "none", spec: v1.PodSpec{DNSPolicy: v1.DNSNone, DNSConfig: &v1.PodDNSConfig{Nameservers: []string{"192.0.2.9"}}}, want: "nameserver 192.0.2.9\n"},
		{
			name: "added", spec: v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, DNSConfig: &v1.PodDNSConfig{
				Nameservers: []string{"192.0.2.9", "10.9.0.1"}, Searches: []string{"x.example"},
				Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: new("2")}, {Name: "edns0"}},
			}},
			want: "nameserver 10.9.0.1\nnameserver 192.0.2.9\nsearch default.svc.cluster.local svc.cluster.local cluster.local x.example\n" +
				"options ndots:2 edns0\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := testPod(func(p *v1.Pod) { p.Spec = tt.spec })
			if diff := cmp.Diff(tt.want, resolvContent(p, "10.9.0.1", "cluster.local", machine)); diff != "" {
				t.Errorf("resolv.conf (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHostsAndHostname(t *testing.T) {
	t.Parallel()
	p := testPod(func(p *v1.Pod) {
		p.Spec.Hostname, p.Spec.Subdomain = "web", "sub"
		p.Spec.HostAliases = []v1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"a.example", "b.example"}}}
	})
	want := "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n" +
		"10.0.0.2\tweb.sub.default.svc.cluster.local\tweb\n\n# Entries added by HostAliases.\n192.0.2.1\ta.example\tb.example\n"
	if diff := cmp.Diff(want, hostsContent(p, "10.0.0.2", "cluster.local")); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	if got := hostname(p, "cluster.local"); got != "web" {
		t.Errorf("host name %q", got)
	}
	p.Spec.SetHostnameAsFQDN = new(true)
	if got := hostname(p, "cluster.local"); got != "web.sub.default.svc.cluster.local" {
		t.Errorf("full host name %q", got)
	}
	long := testPod(func(p *v1.Pod) { p.Name = "a23456789-123456789-123456789-123456789-123456789-123456789-1.3-rest" })
	if got := hostname(long, "cluster.local"); got != "a23456789-123456789-123456789-123456789-123456789-123456789-1.3" {
		t.Errorf("cut host name %q", got)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := backoff{base: 10 * time.Second, max: 5 * time.Minute}
	if _, wait := b.until(now, now); wait {
		t.Error("the first restart waits")
	}
	var got []time.Duration
	for range 7 {
		b.next(now, now)
		got = append(got, b.delay)
		end, wait := b.until(now, now.Add(b.delay-1))
		if !wait || !end.Equal(now.Add(b.delay)) {
			t.Errorf("with a pause of %v: end %v, wait %v", b.delay, end, wait)
		}
		now = now.Add(b.delay)
	}
	want := []time.Duration{
		10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	if _, wait := b.until(now.Add(time.Hour), now.Add(time.Hour)); wait {
		t.Error("a container that ran for long waits")
	}
	b.next(now.Add(time.Hour), now.Add(time.Hour))
	if b.delay != 10*time.Second {
		t.Errorf("the pause after a long run is %v, want the first again", b.delay)
	}
}
