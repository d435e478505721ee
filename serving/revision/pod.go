package revision

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	apiconfig "knative.dev/serving/pkg/apis/config"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weft-dev/weft/serving/config"
)

const (
	// drainPort and drainPath are asked before a container is stopped. The data plane answers for the pod when no request is
	// in flight to it; upstream's queue-proxy listens there itself.
	drainPort = 8022
	drainPath = "/wait-for-drain"

	varLogVolume = "knative-var-log"
)

// PodSpec returns the pod of a revision. There is no sidecar: the data plane dials the serving container, so that its own
// probes decide about traffic.
func PodSpec(r *servingv1.Revision, s *config.Snapshot) corev1.PodSpec {
	pod := r.Spec.PodSpec.DeepCopy()
	for i := range pod.Containers {
		c := &pod.Containers[i]
		// The container with the port serves; validation allows one port over all of them.
		container(r, c, s, len(c.Ports) > 0 || len(pod.Containers) == 1)
		if i < len(r.Status.ContainerStatuses) && r.Status.ContainerStatuses[i].ImageDigest != "" {
			c.Image = r.Status.ContainerStatuses[i].ImageDigest
		}
	}
	for i := range pod.InitContainers {
		// Upstream leaves this to the user. Without it a failing one has nothing to say.
		explainEnd(&pod.InitContainers[i])
		if i < len(r.Status.InitContainerStatuses) && r.Status.InitContainerStatuses[i].ImageDigest != "" {
			pod.InitContainers[i].Image = r.Status.InitContainerStatuses[i].ImageDigest
		}
	}
	// A pod may take as long to stop as its longest request takes to end.
	pod.TerminationGracePeriodSeconds = r.Spec.TimeoutSeconds
	if pod.EnableServiceLinks == nil {
		pod.EnableServiceLinks = s.Defaults.EnableServiceLinks
	}
	if class := s.Deployment.RuntimeClass(r.Labels); pod.RuntimeClassName == nil && class != "" {
		pod.RuntimeClassName = &class
	}
	if pod.Affinity == nil && s.Deployment.Affinity == config.PreferSpreadRevisionOverNodes {
		pod.Affinity = spread(r)
	}
	if s.Observability.VarLogCollection {
		collectVarLog(pod)
	}
	return *pod
}

// container completes one container in place.
func container(r *servingv1.Revision, c *corev1.Container, s *config.Snapshot, serves bool) {
	for _, p := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
		if p != nil && p.HTTPGet != nil {
			// Knative takes a scheme in any case, Kubernetes in capitals only.
			p.HTTPGet.Scheme = corev1.URIScheme(strings.ToUpper(string(p.HTTPGet.Scheme)))
		}
	}
	if !serves && c.ReadinessProbe != nil {
		often(c.ReadinessProbe)
	}
	if serves {
		port := servingv1.DefaultUserPort
		if len(c.Ports) > 0 && c.Ports[0].ContainerPort != 0 {
			port = int(c.Ports[0].ContainerPort)
		}
		c.Ports = []corev1.ContainerPort{{Name: servingv1.UserPortName, ContainerPort: int32(port)}}
		c.Env = append(c.Env, corev1.EnvVar{Name: "PORT", Value: strconv.Itoa(port)})
		c.ReadinessProbe = readiness(c.ReadinessProbe, port)
		if c.LivenessProbe != nil {
			// Upstream lets a probe go elsewhere only where it probes all containers.
			aim(c.LivenessProbe, port, s.Features.MultiContainerProbing == apiconfig.Enabled)
		}
		if c.StartupProbe != nil {
			aim(c.StartupProbe, port, true)
		}
	}
	c.Env = append(
		c.Env,
		corev1.EnvVar{Name: "K_REVISION", Value: r.Name},
		corev1.EnvVar{Name: "K_CONFIGURATION", Value: r.Labels[serving.ConfigurationLabelKey]},
		corev1.EnvVar{Name: "K_SERVICE", Value: r.Labels[serving.ServiceLabelKey]},
	)
	c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
		HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(drainPort), Path: drainPath},
	}}
	c.Stdin, c.TTY = false, false
	explainEnd(c)
}

// explainEnd lets the end of the log be the message of a container that fails without one.
func explainEnd(c *corev1.Container) {
	if c.TerminationMessagePolicy == "" {
		c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	}
}

// readiness returns the serving container's readiness probe.
func readiness(p *corev1.Probe, port int) *corev1.Probe {
	if p == nil {
		p = &corev1.Probe{}
	}
	if p.HTTPGet == nil && p.TCPSocket == nil && p.Exec == nil && p.GRPC == nil {
		p.TCPSocket = &corev1.TCPSocketAction{}
	}
	aim(p, port, true)
	often(p)
	return p
}

// often gives a readiness probe the least period that Kubernetes knows when it has none. Zero is Knative's "as often as makes
// sense": the node agent probes a new pod in steps of milliseconds, and every second afterwards.
func often(p *corev1.Probe) {
	p.PeriodSeconds = max(p.PeriodSeconds, 1)
	p.SuccessThreshold = max(p.SuccessThreshold, 1)
	p.TimeoutSeconds = max(p.TimeoutSeconds, 1)
}

// aim points a probe at the serving port, unless it may keep the one it has.
func aim(p *corev1.Probe, port int, keep bool) {
	target := intstr.FromInt32(int32(port))
	switch {
	case p.HTTPGet != nil && (!keep || p.HTTPGet.Port.IntValue() == 0):
		p.HTTPGet.Port = target
	case p.TCPSocket != nil && (!keep || p.TCPSocket.Port.IntValue() == 0):
		p.TCPSocket.Port = target
	case p.GRPC != nil && p.GRPC.Port == 0:
		p.GRPC.Port = int32(port)
	}
}

// spread prefers nodes without an instance of the revision.
func spread(r *servingv1.Revision) *corev1.Affinity {
	return &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 100,
			PodAffinityTerm: corev1.PodAffinityTerm{
				TopologyKey:   corev1.LabelHostname,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{serving.RevisionLabelKey: r.Name}},
			},
		}},
	}}
}

// collectVarLog gives each container a directory of one shared volume, which a collector on the node finds by its name.
func collectVarLog(pod *corev1.PodSpec) {
	pod.Volumes = append(pod.Volumes, corev1.Volume{
		Name: varLogVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
	})
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	for i := range pod.Containers {
		c := &pod.Containers[i]
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{
			Name: varLogVolume, MountPath: "/var/log",
			SubPathExpr: "$(K_INTERNAL_POD_NAMESPACE)_$(K_INTERNAL_POD_NAME)_" + c.Name,
		})
		c.Env = append(c.Env, field("K_INTERNAL_POD_NAME", "metadata.name"), field("K_INTERNAL_POD_NAMESPACE", "metadata.namespace"))
	}
}
