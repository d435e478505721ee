package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"github.com/weft-dev/weft/cmd/weft/teardown"
	"github.com/weft-dev/weft/embedded/pki"
	"github.com/weft-dev/weft/node"
	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/sandbox"
)

// startNode starts the node agent and what it works with, and returns when the Node is ready.
func (p *platform) startNode(ctx context.Context) error {
	log := p.Log.With("component", "node")
	// Made before the agent runs: the bridge's address is where the API server, pods and the proxy meet.
	pool, err := sandbox.NewPool(sandbox.Options{Instance: p.Settings.Instance, Log: log})
	if err != nil {
		return fmt.Errorf("setting up the network of pods: %w", err)
	}
	runtime, err := container.NewRuntime(container.Options{
		Instance: p.Settings.Instance, RuntimePath: p.Binaries.Runtime, ShimPath: p.Binaries.Shim, Log: log,
	})
	if err != nil {
		return err
	}
	serverTLS, err := kubeletTLS(p.control.Files())
	if err != nil {
		return err
	}
	agent, err := node.New(node.Options{
		Instance: p.Settings.Instance, NodeName: p.control.NodeName(), Config: p.control.RESTConfig(),
		Images: p.images, Sandboxes: pool, Runtime: runtime, ServerTLS: serverTLS, Log: log,
	})
	if err != nil {
		return err
	}
	p.stats.Store(agent.Stats())
	p.parts.start("sandbox pool", pool.Run)
	p.parts.start("container monitors", runtime.Run)
	// Stopped after the agent, which would start them again.
	p.parts.then("containers", func() error {
		return teardown.StopContainers(context.WithoutCancel(ctx), runtime)
	})
	p.parts.start("node agent", agent.Run)
	return p.waitNode(ctx)
}

// kubeletTLS serves with the node's certificate, read again for each connection so that a renewed one is used, to clients whose
// certificates the platform's own authority has signed.
func kubeletTLS(files pki.Files) (*tls.Config, error) {
	authority, err := os.ReadFile(files.CA.Cert)
	if err != nil {
		return nil, fmt.Errorf("reading certificate authority: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("reading certificate authority %q: no certificate in it", files.CA.Cert)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(files.Kubelet.Cert, files.Kubelet.Key)
			if err != nil {
				return nil, fmt.Errorf("reading kubelet certificate: %w", err)
			}
			return &pair, nil
		},
		ClientCAs:  clients,
		ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}

// waitNode returns when the Node exists and is ready for pods.
func (p *platform) waitNode(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(p.control.RESTConfig())
	if err != nil {
		return fmt.Errorf("making client: %w", err)
	}
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", p.control.NodeName()).String()}
	for {
		events, err := client.CoreV1().Nodes().Watch(ctx, options)
		if err != nil {
			return fmt.Errorf("watching node: %w", err)
		}
		for event := range events.ResultChan() {
			if n, ok := event.Object.(*corev1.Node); ok && nodeReady(n) {
				events.Stop()
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for the node: %w", context.Cause(ctx))
		}
	}
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
