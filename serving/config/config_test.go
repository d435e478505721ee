package config

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/sets"
	"knative.dev/serving/pkg/apis/autoscaling"
	apiconfig "knative.dev/serving/pkg/apis/config"
)

func TestDefaults(t *testing.T) {
	t.Parallel()
	s := Default(Domains{})
	for _, tt := range []struct {
		name      string
		got, want any
	}{
		{"autoscaler", s.Autoscaler, &Autoscaler{
			EnableScaleToZero: true, TargetUtilization: .7, ConcurrencyTarget: 100, RPSTarget: 200, TargetBurstCapacity: 211, ActivatorCapacity: 100,
			InitialScale: 1, MaxScaleUpRate: 1000, MaxScaleDownRate: 2, StableWindow: time.Minute, PanicWindowPercentage: 10,
			PanicThresholdPercentage: 200, ScaleToZeroGracePeriod: 30 * time.Second, Class: autoscaling.KPA,
		}},
		{"gc", s.GC, &GC{RetainSinceCreateTime: 48 * time.Hour, RetainSinceLastActiveTime: 15 * time.Hour, MinNonActiveRevisions: 20, MaxNonActiveRevisions: 1000}},
		{"progress deadline", s.Deployment.ProgressDeadline, 10 * time.Minute},
		{"digest resolution timeout", s.Deployment.DigestResolutionTimeout, 10 * time.Second},
		{"registries", s.Deployment.SkipTagResolving, sets.New("kind.local", "ko.local", "dev.local")},
		{"affinity", s.Deployment.Affinity, PreferSpreadRevisionOverNodes},
		{"domain", s.Domain.Of(nil), "svc.cluster.local"},
		{"timeout", s.Defaults.RevisionTimeoutSeconds, int64(300)},
		{"multi-container", s.Features.MultiContainer, apiconfig.Enabled},
		{"tag header", s.Features.TagHeaderBasedRouting, apiconfig.Disabled},
		{"ingress class", s.Network.IngressClass, "istio.ingress.networking.knative.dev"},
		{"scheme", s.Network.ExternalScheme, "http"},
		{"http", s.Network.HTTPProtocol, HTTPEnabled},
		{"metrics", s.Observability.Metrics, Export{Protocol: "none"}},
		{"tracing", s.Observability.Tracing, Tracing{Protocol: "none"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAutoscalerReachesTheTypes checks that the numbers of this package arrive in the structure that Knative's validation reads, by
// comparing with upstream's defaults and by changing each.
func TestAutoscalerReachesTheTypes(t *testing.T) {
	t.Parallel()
	got := apiconfig.FromContext(Default(Domains{}).ToContext(t.Context())).Autoscaler
	want := apiconfig.FromContextOrDefaults(t.Context()).Autoscaler
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-upstream +ours):\n%s", diff)
	}
	s, err := Parse(map[string]map[string]string{AutoscalerName: {
		"max-scale": "7", "max-scale-limit": "9", "min-scale": "2", "allow-zero-initial-scale": "true", "initial-scale": "0", "stable-window": "30s",
		"pod-autoscaler-class": "mine", "scale-down-delay": "3s",
	}}, Domains{})
	if err != nil {
		t.Fatal(err)
	}
	got = apiconfig.FromContext(s.ToContext(t.Context())).Autoscaler
	want.MaxScale, want.MaxScaleLimit, want.MinScale, want.AllowZeroInitialScale, want.InitialScale = 7, 9, 2, true, 0
	want.StableWindow, want.PodAutoscalerClass, want.ScaleDownDelay = 30*time.Second, "mine", 3*time.Second
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		config, key, value string
		// want is a part of the error; empty is valid.
		want string
	}{
		{AutoscalerName, "container-concurrency-target-percentage", "0.5", ""},
		{AutoscalerName, "container-concurrency-target-percentage", "55", ""},
		{AutoscalerName, "container-concurrency-target-percentage", "142.4", "container-concurrency-target-percentage = 1.424000 is outside of valid range of (0, 100]"},
		{AutoscalerName, "container-concurrency-target-percentage", "-42", "container-concurrency-target-percentage"},
		{AutoscalerName, "container-concurrency-target-default", "0.001", "can't be less than 0.01"},
		{AutoscalerName, "requests-per-second-target-default", "-5.25", "requests-per-second-target-default must be at least 0.01"},
		{AutoscalerName, "target-burst-capacity", "-1", ""},
		{AutoscalerName, "target-burst-capacity", "-11", "target-burst-capacity must be either non-negative or -1"},
		{AutoscalerName, "activator-capacity", "0.95", "activator-capacity = 0.95, must be at least 1"},
		{AutoscalerName, "enable-scale-to-zero", "TRUE", ""},
		{AutoscalerName, "enable-scale-to-zero", "maybe", `parsing "enable-scale-to-zero"`},
		{AutoscalerName, "max-scale-up-rate", "1", "max-scale-up-rate = 1, must be greater than 1.0"},
		{AutoscalerName, "max-scale-up-rate", "fast", `parsing "max-scale-up-rate"`},
		{AutoscalerName, "max-scale-down-rate", "-55", "max-scale-down-rate = -55, must be greater than 1.0"},
		{AutoscalerName, "stable-window", "1h1s", "stable-window = 1h0m1s, must be in [6s; 1h0m0s] range"},
		{AutoscalerName, "stable-window", "5s", "stable-window = 5s, must be in [6s; 1h0m0s] range"},
		{AutoscalerName, "stable-window", "61984ms", "second precision"},
		{AutoscalerName, "scale-down-delay", "61984ms", "second precision"},
		{AutoscalerName, "scale-down-delay", "-1m23s", "scale-down-delay cannot be negative"},
		{AutoscalerName, "scale-to-zero-pod-retention-period", "-4m11s", "scale-to-zero-pod-retention-period cannot be negative"},
		{AutoscalerName, "scale-to-zero-grace-period", "0s", "scale-to-zero-grace-period must be positive"},
		{AutoscalerName, "panic-window-percentage", "0.1", "panic-window-percentage = 0.1, must be in [1, 100] interval"},
		{AutoscalerName, "panic-window-percentage", "110", "panic-window-percentage"},
		{AutoscalerName, "initial-scale", "0", "initial-scale = 0"},
		{AutoscalerName, "initial-scale", "-1", "initial-scale = -1"},
		{AutoscalerName, "min-scale", "-1", "min-scale = -1, must be at least 0"},
		{AutoscalerName, "max-scale", "-1", "max-scale = -1"},
		{AutoscalerName, "max-scale-limit", "-9", "max-scale-limit = -9"},
		{AutoscalerName, "max-scale-limit", "11", "max-scale = 0, must be in [1, max-scale-limit(11)] range"},
		{AutoscalerName, "tick-interval", "2s", ""},
		{DefaultsName, "revision-timeout-seconds", "601", "revision-timeout-seconds (601) cannot be greater than max-revision-timeout-seconds (600)"},
		{DefaultsName, "container-name-template", "{{.Nope}}", "error executing template"},
		{FeaturesName, "multi-container", "whatever", ""},
		{DeploymentName, "progress-deadline", "0s", "progress-deadline cannot be a non-positive duration"},
		{DeploymentName, "progressDeadline", "1500ms", "progress-deadline must be rounded to a whole second"},
		{DeploymentName, "digest-resolution-timeout", "-1s", "digest-resolution-timeout cannot be a non-positive duration"},
		{DeploymentName, "default-affinity-type", "coconut", `unsupported default-affinity-type value: "coconut"`},
		{DeploymentName, "default-affinity-type", "none", ""},
		{DeploymentName, "queue-sidecar-cpu-limit", "lots", `parsing "queue-sidecar-cpu-limit"`},
		{DeploymentName, "queue-sidecar-image", "", ""},
		{DeploymentName, "runtime-class-name", "???", `parsing "runtime-class-name"`},
		{DeploymentName, "runtime-class-name", "G_visor: {}", "runtime-class-name G_visor selector not valid DNSSubdomain"},
		{DeploymentName, "runtime-class-name", "gvisor: {selector: {'a b': c}}", "runtime-class-name gvisor selector invalid"},
		{DomainName, "example.com", "", ""},
		{DomainName, "example.com", "selector: [", `parsing "example.com"`},
		{GCName, "retain-since-create-time", "disabled", ""},
		{GCName, "retain-since-create-time", "-1h", `parsing "retain-since-create-time": must be non-negative`},
		{GCName, "max-non-active-revisions", "19", "min-non-active-revisions(20) must be <= max-non-active-revisions(19)"},
		{GCName, "max-non-active-revisions", "-1", `parsing "max-non-active-revisions"`},
		{GCName, "min-non-active-revisions", "-1", "min-non-active-revisions must be non-negative"},
		{NetworkName, "domain-template", "{{.Name}}/{{.Namespace}}", "domain template has url path"},
		{NetworkName, "domain-template", "{{.Nope}}", "domain-template"},
		{NetworkName, "domain-template", "{{", `parsing "domain-template"`},
		{NetworkName, "tag-template", "{{.Domain}}", "tag-template"},
		{NetworkName, "http-protocol", "Redirected", ""},
		{NetworkName, "http-protocol", "gopher", "httpProtocol gopher in config-network ConfigMap is not supported"},
		{NetworkName, "rollout-duration", "-1", "rollout-duration must be a positive integer, but was -1"},
		{NetworkName, "system-internal-tls", "perhaps", `parsing "system-internal-tls"`},
		{NetworkName, "cluster-local-domain-tls", "perhaps", `parsing "cluster-local-domain-tls"`},
		{NetworkName, "namespace-wildcard-cert-selector", "matchExpressions: 3", `parsing "namespace-wildcard-cert-selector"`},
		{ObservabilityName, "metrics-protocol", "smoke signals", `metrics-protocol: unsupported protocol "smoke signals"`},
		{ObservabilityName, "request-metrics-protocol", "grpc", "request-metrics-endpoint should be set"},
		{ObservabilityName, "metrics-endpoint", "x:1", "metrics-endpoint should not be set"},
		{ObservabilityName, "tracing-sampling-rate", "1.5", "tracing-sampling-rate"},
		{ObservabilityName, "tracing-protocol", "grpc", "tracing-endpoint should be set"},
		{ObservabilityName, "runtime-profiling", "sometimes", `parsing "runtime-profiling"`},
		{ObservabilityName, "logging.request-log-template", "{{", `parsing "logging.request-log-template"`},
		{ObservabilityName, "runtime-profiling", "Enabled", `parsing "runtime-profiling"`},
		{ObservabilityName, "logging.enable-request-log", "true", ""},
		{NetworkName, "httpProtocol", " redirected ", ""},
		{GCName, "retain-since-create-time", " 10s ", ""},
		{LeaderElectionName, "buckets", "10", ""},
		{LeaderElectionName, "buckets", "11", "buckets: value must be between 1 <= 11 <= 10"},
		{LeaderElectionName, "buckets", "0", "buckets: value must be between 1 <= 0 <= 10"},
		{LeaderElectionName, "leaseDuration", "x", `parsing "leaseDuration"`},
		{LeaderElectionName, "lease-duration", "15s", ""},
		{LeaderElectionName, "retry-period", "2", `parsing "retry-period"`},
		{LeaderElectionName, "map-lease-prefix.a", "b", ""},
		{LoggingName, "loglevel.controller", "DEBUG", ""},
		{LoggingName, "loglevel.queueproxy", "", ""},
		{LoggingName, "loglevel.activator", "loud", "loglevel.activator: invalid logging level: loud"},
		{LoggingName, "loglevel.", "loud", ""},
		{LoggingName, "zap-logger-config", "{}", ""},
		{CertManagerName, "issuerRef", "kind: ClusterIssuer", ""},
		{CertManagerName, "clusterLocalIssuerRef", "- a", `parsing "clusterLocalIssuerRef"`},
		{TracingName, "backend", "zipkin", ""},
		{"config-of-somebody-else", "a", "b", ""},
	} {
		t.Run(tt.config+"/"+tt.key+"="+tt.value, func(t *testing.T) {
			t.Parallel()
			err := Validate(tt.config, map[string]string{tt.key: tt.value})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && err == nil:
				t.Errorf("accepted, want an error with %q", tt.want)
			case tt.want != "" && (!strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.config)):
				t.Errorf("error %q names not both %q and %q", err, tt.config, tt.want)
			}
		})
	}
}

func TestAllMistakesAreTold(t *testing.T) {
	t.Parallel()
	err := Validate(AutoscalerName, map[string]string{"stable-window": "1s", "max-scale-up-rate": "1", "min-scale": "-1"})
	for _, key := range []string{"stable-window", "max-scale-up-rate", "min-scale"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("error %v does not name %s", err, key)
		}
	}
}

func TestDomain(t *testing.T) {
	t.Parallel()
	data := map[string]string{
		"_example":  "selector: [ this is never read",
		"prod.com":  "selector:\n  app: prod",
		"prod2.com": "selector:\n  app: prod\n  version: '2'",
		"a.com":     "selector:\n  team: x",
		"b.com":     "selector:\n  team: x\ntype: wildcard",
	}
	for _, tt := range []struct {
		name   string
		extra  string
		labels map[string]string
		want   string
	}{
		{name: "the installation's default", want: "localhost"},
		{name: "an entry for all", extra: "all.com", want: "all.com"},
		{name: "by label", labels: map[string]string{"app": "prod"}, want: "prod.com"},
		{name: "the most specific", labels: map[string]string{"app": "prod", "version": "2"}, want: "prod2.com"},
		{name: "another value", labels: map[string]string{"app": "prod", "version": "3"}, want: "prod.com"},
		{name: "the first by name among equals", labels: map[string]string{"team": "x"}, want: "a.com"},
		{name: "cluster-local", labels: map[string]string{"app": "prod", "networking.knative.dev/visibility": "cluster-local"}, want: "svc.cluster.local"},
		{name: "an unknown visibility", labels: map[string]string{"app": "prod", "networking.knative.dev/visibility": "x"}, want: "prod.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			with := maps.Clone(data)
			if tt.extra != "" {
				with[tt.extra] = ""
			}
			d, err := parseDomain(with, "localhost", "cluster.local")
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Of(tt.labels); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRuntimeClass(t *testing.T) {
	t.Parallel()
	d, err := parseDeployment(map[string]string{"runtime-class-name": "kata: {selector: {a: b, c: d}}\ngvisor: {selector: {a: b}}"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		labels map[string]string
		want   string
	}{
		{name: "none", want: ""},
		{name: "one", labels: map[string]string{"a": "b"}, want: "gvisor"},
		{name: "the most specific", labels: map[string]string{"a": "b", "c": "d"}, want: "kata"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := d.RuntimeClass(tt.labels); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	n, err := parseNetwork(map[string]string{
		"domainTemplate": "old", "domain-template": `{{.Name}}-{{index .Labels "team"}}.{{.Domain}}`, "tag-template": "{{.Name}}--{{.Tag}}",
		"autoTLS": "Disabled", "external-domain-tls": "Enabled", "internal-encryption": "true", "httpProtocol": "Redirected",
		"rolloutDuration": "5", "rollout-duration": "7", "autocreateClusterDomainClaims": "true",
	})
	if err != nil {
		t.Fatal(err)
	}
	host, err := n.Host(HostValues{Name: "hello", Namespace: "default", Domain: "example.com", Labels: map[string]string{"team": "red"}})
	if err != nil || host != "hello-red.example.com" {
		t.Errorf("host %q, %v", host, err)
	}
	if name, err := n.TagName("hello", "blue"); err != nil || name != "hello--blue" {
		t.Errorf("tag name %q, %v", name, err)
	}
	if name, err := n.TagName("hello", ""); err != nil || name != "hello" {
		t.Errorf("name without tag %q, %v", name, err)
	}
	if !n.ExternalDomainTLS || !n.SystemInternalTLS || n.ClusterLocalDomainTLS || n.HTTPProtocol != HTTPRedirected ||
		n.RolloutSeconds != 7 || !n.AutocreateClusterDomainClaims {
		t.Errorf("got %+v", n)
	}
}

func newTestStore() *Store { return NewStore(Options{Logger: slog.New(slog.DiscardHandler)}) }

func TestStore(t *testing.T) {
	t.Parallel()
	s := newTestStore()
	all, autoscaler, network := s.Changes(), s.Changes(AutoscalerName), s.Changes(NetworkName)
	taken := func(name string, got bool, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: event %v, want %v", name, got, want)
		}
	}
	events := func() (a, b, c bool) {
		select {
		case <-all:
			a = true
		default:
		}
		select {
		case <-autoscaler:
			b = true
		default:
		}
		select {
		case <-network:
			c = true
		default:
		}
		return a, b, c
	}
	steps := []struct {
		name        string
		config      string
		data        map[string]string
		wantErr     bool
		wantInvalid bool
		wantWindow  time.Duration
		wantChanged bool
	}{
		{name: "absent stays absent", config: AutoscalerName, wantWindow: time.Minute},
		{name: "only an example", config: AutoscalerName, data: map[string]string{"_example": "stable-window: 20s"}, wantWindow: time.Minute},
		{name: "a change", config: AutoscalerName, data: map[string]string{"stable-window": "20s"}, wantWindow: 20 * time.Second, wantChanged: true},
		{name: "the same again", config: AutoscalerName, data: map[string]string{"stable-window": "20s"}, wantWindow: 20 * time.Second},
		{name: "a mistake keeps the last good", config: AutoscalerName, data: map[string]string{"stable-window": "x"}, wantErr: true, wantInvalid: true, wantWindow: 20 * time.Second},
		{name: "a foreign map", config: "config-of-somebody-else", data: map[string]string{"stable-window": "x"}, wantInvalid: true, wantWindow: 20 * time.Second},
		{name: "gone", config: AutoscalerName, wantWindow: time.Minute, wantChanged: true},
	}
	for _, step := range steps {
		err := s.Set(step.config, step.data)
		if (err != nil) != step.wantErr {
			t.Errorf("%s: error %v", step.name, err)
		}
		if (s.Invalid(AutoscalerName) != nil) != step.wantInvalid {
			t.Errorf("%s: invalid %v", step.name, s.Invalid(AutoscalerName))
		}
		if got := s.Load().Autoscaler.StableWindow; got != step.wantWindow {
			t.Errorf("%s: stable window %v, want %v", step.name, got, step.wantWindow)
		}
		a, b, c := events()
		taken(step.name+", all", a, step.wantChanged)
		taken(step.name+", autoscaler", b, step.wantChanged)
		taken(step.name+", network", c, false)
	}
}

// TestSnapshotsDoNotChange holds on to one while the Store moves on.
func TestSnapshotsDoNotChange(t *testing.T) {
	t.Parallel()
	s := newTestStore()
	before := s.Load()
	data := map[string]string{"stable-window": "20s"}
	if err := s.Set(AutoscalerName, data); err != nil {
		t.Fatal(err)
	}
	data["stable-window"] = "30s"
	if before.Autoscaler.StableWindow != time.Minute || s.Load().Autoscaler.StableWindow != 20*time.Second {
		t.Errorf("before %v, after %v", before.Autoscaler.StableWindow, s.Load().Autoscaler.StableWindow)
	}
	if s.Load().Network != before.Network {
		t.Error("a part that did not change was made anew")
	}
}

func TestStoreIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	s := newTestStore()
	done := make(chan error, 4)
	for range 2 {
		go func() {
			for i := range 100 {
				if err := s.Set(AutoscalerName, map[string]string{"stable-window": fmt.Sprintf("%ds", 6+i%10)}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		go func() {
			ctx := context.Background()
			for range 100 {
				if apiconfig.FromContext(s.ToContext(ctx)).Autoscaler == nil {
					done <- fmt.Errorf("no autoscaler configuration in the context")
					return
				}
				s.Changes(NetworkName)
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
