package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/autoscaler/scale"
	"github.com/weft-dev/weft/serving/config"
	"github.com/weft-dev/weft/serving/names"
)

// logLines is how much of a container's log is shown.
const logLines = 5

// Cluster is where objects are read.
type Cluster interface {
	client.Reader
	// Log returns the last lines of a container's log, of its previous attempt if so asked.
	Log(ctx context.Context, pod client.ObjectKey, container string, previous bool, lines int64) (string, error)
	// Load is what the autoscaler measures of a revision now, or nil where it cannot be asked.
	Load(ctx context.Context, revision client.ObjectKey) *scale.Insight
}

// Objects are what an explanation is made from. What does not exist is nil.
type Objects struct {
	Target        Target
	Service       *servingv1.Service
	Configuration *servingv1.Configuration
	Route         *servingv1.Route
	Mapping       *servingv1beta1.DomainMapping
	// Revisions are those that the explanation is about, the newest first.
	Revisions []RevisionObjects
	// All are the revisions of the configuration, the newest first.
	All []servingv1.Revision
	// Foreign is the Kubernetes Service with the name of the Route when it does not belong to it.
	Foreign *corev1.Service
	// ConfigMaps are the contents of those of serving.
	ConfigMaps map[string]map[string]string
	// Kubectl is how the user calls kubectl for this cluster.
	Kubectl string
}

// RevisionObjects are a revision and what it is made of.
type RevisionObjects struct {
	Revision   *servingv1.Revision
	Deployment *appsv1.Deployment
	Autoscaler *autoscalingv1alpha1.PodAutoscaler
	Pods       []corev1.Pod
	// Events of the pods and of the ReplicaSet, the newest first.
	Events []corev1.Event
	// Logs are the last lines of containers that ended or are not ready, by pod and container as POD/CONTAINER.
	Logs map[string]string
	Load *scale.Insight
}

// NotFoundError says that there is nothing to explain.
type NotFoundError struct {
	Target Target
	// Others are the names of what there is of the kind.
	Others []string
}

// Error implements error.
func (e *NotFoundError) Error() string {
	text := fmt.Sprintf("there is no %s %q in namespace %q", e.Target.Kind, e.Target.Name, e.Target.Namespace)
	if near := nearest(e.Target.Name, e.Others); near != "" {
		return text + fmt.Sprintf(", did you mean %q?", near)
	}
	if len(e.Others) == 0 {
		return text + ", nor any other: is the namespace right? (-n)"
	}
	const most = 8
	shown := quoted(e.Others[:min(len(e.Others), most)])
	if len(e.Others) > most {
		shown += ", ..."
	}
	return text + ", but " + shown
}

// reader is one reading.
type reader struct {
	Cluster
	o *Objects
	// recorded are the events of the namespace, nil before they have been read.
	recorded []corev1.Event
}

// Read gathers what explains the target. Kubectl is how its user calls kubectl.
func Read(ctx context.Context, c Cluster, t Target, kubectl string) (*Objects, error) {
	r := &reader{Cluster: c, o: &Objects{Target: t, Kubectl: kubectl}}
	revision, err := r.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.relatives(ctx, revision); err != nil {
		return nil, err
	}
	for _, name := range r.interesting(revision) {
		if err := r.revision(ctx, name); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(r.o.Revisions, func(a, b RevisionObjects) int { return newer(a.Revision, b.Revision) })
	return r.o, r.configMaps(ctx)
}

// start reads the target itself and the name of the one revision that it is about, if it is about one.
func (r *reader) start(ctx context.Context) (revision string, err error) {
	t := r.o.Target
	switch t.Kind {
	case Service:
		r.o.Service, err = get[servingv1.Service](ctx, r, t.Name)
		return "", r.must(ctx, err, r.o.Service == nil, &servingv1.ServiceList{})
	case Configuration:
		r.o.Configuration, err = get[servingv1.Configuration](ctx, r, t.Name)
		return "", r.must(ctx, err, r.o.Configuration == nil, &servingv1.ConfigurationList{})
	case Route:
		r.o.Route, err = get[servingv1.Route](ctx, r, t.Name)
		return "", r.must(ctx, err, r.o.Route == nil, &servingv1.RouteList{})
	case DomainMapping:
		r.o.Mapping, err = get[servingv1beta1.DomainMapping](ctx, r, t.Name)
		if err := r.must(ctx, err, r.o.Mapping == nil, &servingv1beta1.DomainMappingList{}); err != nil {
			return "", err
		}
		return "", r.referred(ctx)
	case Revision:
		found, err := get[servingv1.Revision](ctx, r, t.Name)
		return t.Name, r.must(ctx, err, found == nil, &servingv1.RevisionList{})
	case Pod:
		found, err := get[corev1.Pod](ctx, r, t.Name)
		if err := r.must(ctx, err, found == nil, &corev1.PodList{}); err != nil {
			return "", err
		}
		if revision = found.Labels[serving.RevisionLabelKey]; revision == "" {
			return "", fmt.Errorf("pod %q belongs to no revision; `%s describe pod %s -n %s` says what Kubernetes knows of it",
				t.Name, r.o.Kubectl, t.Name, t.Namespace)
		}
		return revision, nil
	}
	return "", fmt.Errorf("type %q cannot be explained", t.Kind)
}

// referred reads what a DomainMapping points to.
func (r *reader) referred(ctx context.Context) (err error) {
	switch ref := r.o.Mapping.Spec.Ref; ref.Kind {
	case "Service":
		r.o.Service, err = get[servingv1.Service](ctx, r, ref.Name)
	case "Route":
		r.o.Route, err = get[servingv1.Route](ctx, r, ref.Name)
	}
	return err
}

// relatives reads what belongs to what has been read so far.
func (r *reader) relatives(ctx context.Context, revision string) error {
	owner, route, err := r.related(ctx, revision)
	if err != nil {
		return err
	}
	if owner != "" && r.o.Configuration == nil {
		if r.o.Configuration, err = get[servingv1.Configuration](ctx, r, owner); err != nil {
			return err
		}
	}
	if route != "" && r.o.Route == nil {
		if r.o.Route, err = get[servingv1.Route](ctx, r, route); err != nil {
			return err
		}
	}
	if err := r.foreign(ctx); err != nil || owner == "" {
		return err
	}
	var list servingv1.RevisionList
	if err := r.list(ctx, &list, client.MatchingLabels{serving.ConfigurationLabelKey: owner}); err != nil {
		return err
	}
	r.o.All = list.Items
	slices.SortFunc(r.o.All, func(a, b servingv1.Revision) int { return newer(&a, &b) })
	return nil
}

// related names the configuration and the route that what has been read belongs to.
func (r *reader) related(ctx context.Context, revision string) (owner, route string, err error) {
	switch {
	case r.o.Service != nil:
		return r.o.Service.Name, r.o.Service.Name, nil
	case revision != "":
		rev, err := get[servingv1.Revision](ctx, r, revision)
		if rev != nil {
			owner = rev.Labels[serving.ConfigurationLabelKey]
			route, _, _ = strings.Cut(rev.Annotations[serving.RoutesAnnotationKey], ",")
		}
		return owner, route, err
	case r.o.Route != nil:
		for i := range r.o.Route.Spec.Traffic {
			owner = cmp.Or(owner, r.o.Route.Spec.Traffic[i].ConfigurationName)
		}
		return cmp.Or(owner, r.o.Route.Labels[serving.ServiceLabelKey]), "", nil
	case r.o.Configuration != nil:
		route, _, _ = strings.Cut(r.o.Configuration.Annotations[serving.RoutesAnnotationKey], ",")
		return r.o.Configuration.Name, route, nil
	}
	return "", "", nil
}

// foreign looks for a Service that holds the name of the Route and is not its placeholder.
func (r *reader) foreign(ctx context.Context) error {
	if r.o.Route == nil {
		return nil
	}
	service, err := get[corev1.Service](ctx, r, r.o.Route.Name)
	if err == nil && service != nil && service.Labels[serving.RouteLabelKey] != r.o.Route.Name {
		r.o.Foreign = service
	}
	return err
}

// interesting are the revisions to read whole: the one that is asked about, or else the newest one and those with traffic.
func (r *reader) interesting(asked string) []string {
	if asked != "" {
		return []string{asked}
	}
	var out []string
	if c := r.o.Configuration; c != nil {
		out = append(out, c.Status.LatestCreatedRevisionName)
	}
	if rt := r.o.Route; rt != nil {
		for _, traffic := range [][]servingv1.TrafficTarget{rt.Spec.Traffic, rt.Status.Traffic} {
			for i := range traffic {
				out = append(out, traffic[i].RevisionName)
			}
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(name string) bool { return name == "" })
}

// revision reads a revision and what it is made of. One that does not exist is left out.
func (r *reader) revision(ctx context.Context, name string) (err error) {
	var out RevisionObjects
	if out.Revision, err = get[servingv1.Revision](ctx, r, name); err != nil || out.Revision == nil {
		return err
	}
	if out.Deployment, err = get[appsv1.Deployment](ctx, r, names.Deployment(name)); err != nil {
		return err
	}
	if out.Autoscaler, err = get[autoscalingv1alpha1.PodAutoscaler](ctx, r, names.PodAutoscaler(name)); err != nil {
		return err
	}
	var pods corev1.PodList
	if err := r.list(ctx, &pods, client.MatchingLabels{serving.RevisionLabelKey: name}); err != nil {
		return err
	}
	for i := range pods.Items {
		if r.o.Target.Kind != Pod || r.o.Target.Name == pods.Items[i].Name {
			out.Pods = append(out.Pods, pods.Items[i])
		}
	}
	if out.Events, err = r.events(ctx, &out); err != nil {
		return err
	}
	r.logs(ctx, &out)
	out.Load = r.Load(ctx, client.ObjectKey{Namespace: r.o.Target.Namespace, Name: name})
	r.o.Revisions = append(r.o.Revisions, out)
	return nil
}

// events returns those of a revision's pods and ReplicaSets.
func (r *reader) events(ctx context.Context, of *RevisionObjects) ([]corev1.Event, error) {
	if r.recorded == nil {
		var list corev1.EventList
		if err := r.list(ctx, &list); err != nil {
			return nil, err
		}
		r.recorded = append([]corev1.Event{}, list.Items...)
	}
	wanted := func(ref *corev1.ObjectReference) bool {
		if ref.Kind == "ReplicaSet" {
			return of.Deployment != nil && strings.HasPrefix(ref.Name, of.Deployment.Name+"-")
		}
		return ref.Kind == "Pod" && slices.ContainsFunc(of.Pods, func(p corev1.Pod) bool { return p.Name == ref.Name })
	}
	events := slices.DeleteFunc(slices.Clone(r.recorded), func(e corev1.Event) bool { return !wanted(&e.InvolvedObject) })
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return lastSeen(&b).Compare(lastSeen(&a)) })
	return events, nil
}

// logs reads the last words of containers that are not well. A log that cannot be read is as good as none.
func (r *reader) logs(ctx context.Context, of *RevisionObjects) {
	of.Logs = map[string]string{}
	for i := range of.Pods {
		pod := &of.Pods[i]
		for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			if c.Ready || c.State.Running == nil && c.State.Terminated == nil && c.LastTerminationState.Terminated == nil {
				continue
			}
			previous := c.State.Terminated == nil && c.LastTerminationState.Terminated != nil
			text, err := r.Log(ctx, client.ObjectKeyFromObject(pod), c.Name, previous, logLines)
			if err == nil && text != "" {
				of.Logs[pod.Name+"/"+c.Name] = text
			}
		}
	}
}

func (r *reader) configMaps(ctx context.Context) error {
	var list corev1.ConfigMapList
	if err := r.List(ctx, &list, client.InNamespace(config.Namespace)); err != nil {
		if apierrors.IsForbidden(err) {
			return nil
		}
		return fmt.Errorf("reading config maps: %w", err)
	}
	r.o.ConfigMaps = map[string]map[string]string{}
	for i := range list.Items {
		r.o.ConfigMaps[list.Items[i].Name] = list.Items[i].Data
	}
	return nil
}

func (r *reader) list(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	if err := r.List(ctx, into, append(options, client.InNamespace(r.o.Target.Namespace))...); err != nil {
		return fmt.Errorf("reading the objects of namespace %q: %w", r.o.Target.Namespace, err)
	}
	return nil
}

// get reads one object of the target's namespace, nil when there is none.
func get[T any, P interface {
	*T
	client.Object
}](ctx context.Context, r *reader, name string) (P, error) {
	object := P(new(T))
	err := r.Get(ctx, client.ObjectKey{Namespace: r.o.Target.Namespace, Name: name}, object)
	switch {
	case apierrors.IsNotFound(err), apimeta.IsNoMatchError(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	return object, nil
}

// must turns the absence of the target into a NotFoundError with the names of what there is.
func (r *reader) must(ctx context.Context, err error, absent bool, list client.ObjectList) error {
	if err != nil || !absent {
		return err
	}
	missing := &NotFoundError{Target: r.o.Target}
	if r.list(ctx, list) == nil {
		items, _ := apimeta.ExtractList(list)
		for _, item := range items {
			if object, ok := item.(client.Object); ok {
				missing.Others = append(missing.Others, object.GetName())
			}
		}
	}
	slices.Sort(missing.Others)
	return missing
}

// newer orders revisions by their creation, and by name where that says nothing.
func newer(a, b *servingv1.Revision) int {
	return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(b.Name, a.Name))
}
