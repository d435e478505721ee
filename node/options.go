package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/weft-dev/weft/internal/instance"
	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/pod"
	"github.com/weft-dev/weft/node/volume"
)

// DefaultPort is the kubelet's.
const DefaultPort = 10250

// Options of an Agent.
type Options struct {
	// Instance names the platform whose pods the agent runs.
	Instance instance.Instance
	// NodeName is this machine's name in the API; empty means the host name.
	NodeName string
	// Config reaches the API. Its rate limits are ignored: every request of the agent is one that a pod waits for.
	Config *rest.Config
	// Client is used in place of Config when set.
	Client kubernetes.Interface

	Images    pod.Images
	Sandboxes SandboxPool
	Runtime   container.Runtime

	// Tokens issues the service account tokens of pods; nil asks the API. Every start of a pod waits for one, so that an issuer in
	// this process that holds the signing key makes cold starts faster.
	Tokens volume.Tokens

	// ServerTLS has the certificate of the kubelet API and the pool of client certificate authorities; nil serves none.
	ServerTLS *tls.Config
	// ServerClients says which verified client certificates may use the kubelet API; nil means the one that kube-apiserver uses
	// by convention: common name kube-apiserver-kubelet-client, or organisation system:masters.
	ServerClients func(*x509.Certificate) bool
	// Address is the address at which the API server and pods reach this machine; empty means the instance's gateway.
	Address string
	// Port of the kubelet API, DefaultPort when zero.
	Port int

	// BackoffBase and BackoffMax are the pauses between restarts, kubelet's when zero.
	BackoffBase, BackoffMax time.Duration
	// Log may be nil.
	Log *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if err := o.Instance.Validate(); err != nil {
		return o, fmt.Errorf("checking the options of the node agent: %w", err)
	}
	if o.Images == nil || o.Sandboxes == nil || o.Runtime == nil {
		return o, errors.New("checking the options of the node agent: images, sandboxes and runtime are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("reading the host name: %w", err)
		}
		o.NodeName = name
	}
	if o.Address == "" {
		o.Address = o.Instance.Gateway().String()
	}
	if o.Port == 0 {
		o.Port = DefaultPort
	}
	if o.Client == nil {
		client, err := newClient(o.Config)
		if err != nil {
			return o, err
		}
		o.Client = client
	}
	if o.Tokens == nil {
		o.Tokens = tokens{o.Client}
	}
	return o, nil
}

// newClient speaks protobuf, which costs a fraction of JSON to decode, and has no rate limit.
func newClient(config *rest.Config) (kubernetes.Interface, error) {
	if config == nil {
		return nil, errors.New("checking the options of the node agent: a configuration or a client of the API is needed")
	}
	c := rest.CopyConfig(config)
	c.QPS, c.RateLimiter = -1, nil
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("making the client of the API: %w", err)
	}
	return client, nil
}
