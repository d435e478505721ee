package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/autoscaler/scale"
)

// InsightPath is where the platform's debug socket answers what its autoscaler measures, with the queries namespace and revision.
const InsightPath = "/debug/autoscaler"

// connection is a Cluster over the network.
type connection struct {
	client.Client
	clients kubernetes.Interface
	// debug reaches the platform's debug socket; nil without one.
	debug *http.Client
}

var _ Cluster = (*connection)(nil)

// Connect returns the Cluster that access leads to. Debug is the path of the platform's debug socket, or empty.
func Connect(access *rest.Config, debug string) (Cluster, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(access, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", access.Host, err)
	}
	clients, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", access.Host, err)
	}
	out := &connection{Client: c, clients: clients}
	if debug != "" {
		out.debug = &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", debug)
			},
		}}
	}
	return out, nil
}

// newScheme knows the kinds that are read.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(
		corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme),
		servingv1.AddToScheme(scheme), servingv1beta1.AddToScheme(scheme), autoscalingv1alpha1.AddToScheme(scheme),
	)
	if err != nil {
		return nil, fmt.Errorf("registering types: %w", err)
	}
	return scheme, nil
}

// Log implements Cluster.
func (c *connection) Log(ctx context.Context, pod client.ObjectKey, container string, previous bool, lines int64) (string, error) {
	options := &corev1.PodLogOptions{Container: container, Previous: previous, TailLines: &lines}
	data, err := c.clients.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("reading log of pod %q: %w", pod.Name, err)
	}
	return string(data), nil
}

// Load implements Cluster. A platform that cannot be asked has nothing to tell: the rest of the explanation does not need it.
func (c *connection) Load(ctx context.Context, revision client.ObjectKey) *scale.Insight {
	if c.debug == nil {
		return nil
	}
	query := url.Values{"namespace": {revision.Namespace}, "revision": {revision.Name}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://weft"+InsightPath+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil
	}
	response, err := c.debug.Do(request)
	if err != nil {
		return nil
	}
	defer func() { _ = response.Body.Close() }()
	var load scale.Insight
	if response.StatusCode != http.StatusOK || json.NewDecoder(response.Body).Decode(&load) != nil {
		return nil
	}
	return &load
}
