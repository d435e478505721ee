package scale

import (
	"context"
	"fmt"
	"strconv"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Client patches the scale subresource of Deployments. It reads no cache and waits for no rate limit.
type Client struct {
	apps rest.Interface
}

var _ Patcher = (*Client)(nil)

// NewClient returns a Client for the API server of config.
func NewClient(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	// A wake must not wait for other clients of this process, and there is at most one patch per revision at a time.
	config.QPS, config.RateLimiter = -1, nil
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for scales: %w", err)
	}
	return &Client{apps: clients.AppsV1().RESTClient()}, nil
}

// Scale implements Patcher.
func (c *Client) Scale(ctx context.Context, target Target, replicas int32) (string, error) {
	body := append(strconv.AppendInt([]byte(`{"spec":{"replicas":`), int64(replicas), 10), '}', '}')
	var scale autoscalingv1.Scale
	err := c.apps.Patch(types.MergePatchType).Namespace(target.Namespace).Resource("deployments").Name(target.Name).
		SubResource("scale").Body(body).Do(ctx).Into(&scale)
	if err != nil {
		return "", fmt.Errorf("scaling deployment %s/%s to %d: %w", target.Namespace, target.Name, replicas, err)
	}
	return scale.ResourceVersion, nil
}
