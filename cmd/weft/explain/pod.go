package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/weft-dev/weft/serving/revision"
)

// patience is how long a container may run before a probe that has not succeeded counts as a failure rather than a start.
const patience = 10 * time.Second

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func (e *explainer) pod(r *RevisionObjects, p *corev1.Pod) Link {
	l := Link{Kind: "Pod", Name: p.Name, State: Waiting, Since: p.CreationTimestamp.Time, Says: strings.ToLower(string(p.Status.Phase))}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			l.Since = c.LastTransitionTime.Time
		}
	}
	if p.DeletionTimestamp != nil {
		l.State, l.Says = OK, "ends when its requests have"
		return l
	}
	if isReady(p) {
		l.State, l.Says = OK, "ready"+restarts(p)
		return l
	}
	look := &podLook{explainer: e, objects: r, pod: p, link: &l}
	look.explain()
	return l
}

// restarts mentions that containers of a pod ended before.
func restarts(p *corev1.Pod) string {
	for _, c := range p.Status.ContainerStatuses {
		if t := c.LastTerminationState.Terminated; t != nil && c.RestartCount > 0 {
			return fmt.Sprintf("; container %s was restarted %s, the last time after %s", c.Name, plural(int(c.RestartCount), "time", "times"), ending(t))
		}
	}
	return ""
}

// podLook is the examination of one pod that is not ready.
type podLook struct {
	*explainer
	objects *RevisionObjects
	pod     *corev1.Pod
	link    *Link
}

func (k *podLook) explain() {
	p := k.pod
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			k.unschedulable(c)
			return
		}
	}
	if p.Status.Phase == corev1.PodFailed && p.Status.Reason != "" {
		k.broken("the pod was ended: %s", said(p.Status.Reason, trimPeriod(p.Status.Message)))
		return
	}
	if slices.ContainsFunc(slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses), k.container) {
		return
	}
	if mount := k.event("FailedMount", ""); mount != nil {
		k.broken("a volume cannot be mounted: %s", trimPeriod(mount.Message))
		k.link.Next = []string{"create what is missing, or correct spec.template.spec.volumes"}
		return
	}
	if sandbox := k.event("FailedCreatePodSandBox", ""); sandbox != nil {
		k.broken("the pod's sandbox cannot be made: %s", trimPeriod(sandbox.Message))
		return
	}
	if len(p.Status.ContainerStatuses) == 0 && p.Spec.NodeName == "" {
		k.link.Cause = "the pod waits for a node"
		return
	}
	k.link.Cause = "the pod is starting"
	if pulling := k.event("Pulling", ""); pulling != nil && k.event("Pulled", "") == nil {
		k.link.Cause = "the image is being pulled: " + trimPeriod(pulling.Message)
	}
}

func (k *podLook) broken(format string, args ...any) {
	k.link.State, k.link.Cause = Broken, fmt.Sprintf(format, args...)
	k.link.Says = k.link.Cause
	k.link.Next = []string{k.describe("pod", k.pod.Name)}
}

func (k *podLook) unschedulable(c corev1.PodCondition) {
	message, _, _ := strings.Cut(trimPeriod(c.Message), " no new claims to deallocate")
	k.broken("no node has room for the pod: %s", trimPeriod(message))
	k.link.Since = c.LastTransitionTime.Time
	k.link.Details = requests(k.pod)
	k.link.Next = []string{"lower resources.requests of the containers, or make room: " + k.Kubectl + " describe nodes"}
}

// requests are what the containers of a pod ask for.
func requests(p *corev1.Pod) []string {
	var out []string
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		var parts []string
		for name, quantity := range c.Resources.Requests {
			parts = append(parts, fmt.Sprintf("%s %s", name, quantity.String()))
		}
		if slices.Sort(parts); len(parts) > 0 {
			out = append(out, fmt.Sprintf("container %s requests %s", c.Name, strings.Join(parts, ", ")))
		}
	}
	return out
}

// container explains one container, and reports whether it is the one that keeps the pod from being ready.
func (k *podLook) container(c corev1.ContainerStatus) bool {
	if t := cmp.Or(c.State.Terminated, c.LastTerminationState.Terminated); t != nil && c.State.Running == nil {
		if t.ExitCode == 0 && k.isInit(c.Name) {
			return false
		}
		k.ended(c, t)
		return true
	}
	switch {
	case c.State.Waiting != nil:
		return k.waiting(c)
	case c.State.Running != nil && !c.Ready && !k.isInit(c.Name):
		k.notReady(c)
		return true
	case c.State.Running != nil && k.isInit(c.Name) && !c.Ready:
		k.link.Cause = fmt.Sprintf("init container %s has been running for %s", c.Name, short(k.now.Sub(c.State.Running.StartedAt.Time)))
		k.link.Since = c.State.Running.StartedAt.Time
		return true
	}
	return false
}

func (k *podLook) isInit(name string) bool {
	return slices.ContainsFunc(k.pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

func (k *podLook) spec(name string) *corev1.Container {
	for _, list := range [][]corev1.Container{k.pod.Spec.InitContainers, k.pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return &corev1.Container{}
}

// ending names how a container ended.
func ending(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason == "OOMKilled":
		return "running out of memory"
	case t.Signal != 0:
		return fmt.Sprintf("signal %d", t.Signal)
	}
	return fmt.Sprintf("exit code %d", t.ExitCode)
}

// ended explains a container that does not stay.
func (k *podLook) ended(c corev1.ContainerStatus, t *corev1.ContainerStateTerminated) {
	words := lastLines(cmp.Or(k.objects.Logs[k.pod.Name+"/"+c.Name], t.Message), logLines)
	spec := k.spec(c.Name)
	switch liveness := k.event("Unhealthy", "Liveness"); {
	case t.Reason == "OOMKilled":
		limit := spec.Resources.Limits.Memory()
		k.broken("container %s ran out of memory: its limit is %s", c.Name, limit.String())
		k.link.Next = []string{"raise resources.limits.memory of the container, or let it use less"}
	case t.Reason == "StartError" || t.Reason == "ContainerCannotRun":
		k.broken("container %s cannot be started: %s", c.Name, trimPeriod(t.Message))
		k.link.Next = []string{"correct command, args or workingDir of the container, or its image"}
		words = nil
	case liveness != nil && t.ExitCode != 0 && liveness.LastTimestamp.After(t.StartedAt.Time):
		k.broken("container %s is restarted because its liveness probe fails: %s", c.Name, trimPeriod(afterColon(liveness.Message)))
		k.link.Details = []string{"the probe is " + probe(spec.LivenessProbe)}
	case t.ExitCode == 0:
		k.broken("container %s ends by itself, with exit code 0; a service's container must stay and listen on $PORT", c.Name)
	default:
		k.broken("container %s ends with %s", c.Name, ending(t))
		if len(words) > 0 {
			k.link.Cause += ": " + oneLine(words[len(words)-1])
		}
	}
	k.link.Says = k.link.Cause
	for _, line := range words {
		k.link.Details = append(k.link.Details, "log: "+line)
	}
	if c.RestartCount > 0 {
		k.link.Details = append(k.link.Details, fmt.Sprintf("it has been restarted %s, and ended %s ago",
			plural(int(c.RestartCount), "time", "times"), short(k.now.Sub(t.FinishedAt.Time))))
	}
	k.link.Next = append([]string{k.logs(c.Name, true)}, k.link.Next...)
}

func (k *podLook) logs(container string, previous bool) string {
	command := fmt.Sprintf("%s logs %s -c %s -n %s", k.Kubectl, k.pod.Name, container, k.pod.Namespace)
	if previous {
		command += " --previous"
	}
	return command
}

// waiting explains a container that has not been started.
func (k *podLook) waiting(c corev1.ContainerStatus) bool {
	w := c.State.Waiting
	image := cmp.Or(k.spec(c.Name).Image, c.Image)
	switch w.Reason {
	case "", "ContainerCreating", "PodInitializing":
		return false
	case "ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ErrImageNeverPull":
		answer := trimPeriod(w.Message)
		// While the node waits it says only that; what the registry answered is in an event.
		if failed := k.event("Failed", "Failed to pull image"); failed != nil && w.Reason == "ImagePullBackOff" {
			answer = trimPeriod(afterColon(failed.Message))
		}
		k.broken("image %q cannot be pulled: %s", image, answer)
		k.link.Next = imageNext(image)
	case "InvalidImageName":
		k.broken("image %q is not a valid name: %s", image, trimPeriod(w.Message))
		k.link.Next = []string{"correct the image's name"}
	case "CreateContainerConfigError":
		k.broken("container %s refers to something that is missing: %s", c.Name, trimPeriod(w.Message))
		k.link.Next = []string{"create what is missing, or correct env, envFrom or volumeMounts of the container"}
	default:
		k.broken("container %s cannot be started: %s", c.Name, said(w.Reason, trimPeriod(w.Message)))
	}
	return true
}

// notReady explains a container that runs and whose probe does not succeed.
func (k *podLook) notReady(c corev1.ContainerStatus) {
	spec := k.spec(c.Name)
	kind, p := "Readiness", spec.ReadinessProbe
	if spec.StartupProbe != nil && (c.Started == nil || !*c.Started) {
		kind, p = "Startup", spec.StartupProbe
	}
	running := k.now.Sub(c.State.Running.StartedAt.Time)
	k.link.Since = c.State.Running.StartedAt.Time
	unhealthy := k.event("Unhealthy", kind)
	if unhealthy == nil || running < patience && c.RestartCount == 0 {
		k.link.Cause = fmt.Sprintf("container %s has been running for %s and its %s probe (%s) has not succeeded yet",
			c.Name, short(running), strings.ToLower(kind), probe(p))
		k.link.Says = k.link.Cause
		return
	}
	got := cmp.Or(trimPeriod(afterColon(unhealthy.Message)), "it printed nothing")
	k.broken("the %s probe of container %s fails: %s", strings.ToLower(kind), c.Name, got)
	k.link.Details = []string{"the probe is " + probe(p)}
	if strings.Contains(got, "connection refused") {
		k.link.Details = append(k.link.Details, "nothing listens there: a container must listen on the port in $PORT, on all addresses")
	}
	for _, line := range lastLines(k.objects.Logs[k.pod.Name+"/"+c.Name], logLines) {
		k.link.Details = append(k.link.Details, "log: "+line)
	}
	k.link.Next = []string{k.logs(c.Name, false), "correct the probe, or what the container answers to it"}
}

// probe says what a probe does.
func probe(p *corev1.Probe) string { return cmp.Or(revision.DescribeProbe(p), "not set") }

// event is the pod's newest event of a reason whose message begins with prefix.
func (k *podLook) event(reason, prefix string) *corev1.Event {
	for i := range k.objects.Events {
		e := &k.objects.Events[i]
		if e.InvolvedObject.Kind == "Pod" && e.InvolvedObject.Name == k.pod.Name && e.Reason == reason && strings.HasPrefix(e.Message, prefix) {
			return e
		}
	}
	return nil
}

// lastSeen is when an event happened last, wherever its writer noted that.
func lastSeen(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}

// afterColon drops the words before the first colon, with which Kubernetes begins its messages.
func afterColon(s string) string {
	if _, rest, found := strings.Cut(s, ": "); found {
		return rest
	}
	return s
}
