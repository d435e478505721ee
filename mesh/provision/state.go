package provision

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/weft-dev/weft/mesh/config"
)

// Reasons for which the proxies do not present a good certificate for a host. With CertificateNotReady one is on its way; with all others
// somebody has to do something.
const (
	CertificateNotReady        = "CertificateNotReady"
	CertificateProvisionFailed = "CertificateProvisionFailed"
	SecretNotFound             = "SecretNotFound"
	SecretInvalid              = "SecretInvalid"
	CertificateExpired         = "CertificateExpired"
	CertificateNotYetValid     = "CertificateNotYetValid"
	CertificateNotForHost      = "CertificateNotForHost"
)

// LocalCertificate names the certificate of the platform's own authority for a host of a namespace, and reports whether every proxy presents
// it: then the reason is empty. Else reason and message are for a condition.
func (c *Controller) LocalCertificate(namespace, host string) (name, reason, message string) {
	name = config.LocalCertificate(localName(namespace, host))
	switch {
	case c.authority == nil:
		return name, CertificateProvisionFailed, "the platform has no certificate authority"
	case !c.authority.Permits(host):
		return name, CertificateProvisionFailed, fmt.Sprintf(
			"host %s is outside the domain of the platform's certificate authority; map it by a DomainMapping with a Secret of its own", host)
	}
	reason, message = c.state(name)
	return name, reason, message
}

// SecretCertificate is LocalCertificate for the certificate in a Secret.
func (c *Controller) SecretCertificate(namespace, secret, host string) (name, reason, message string) {
	name = config.SecretCertificate(namespace, secret)
	c.mu.Lock()
	p := c.provided[name]
	c.mu.Unlock()
	if p != nil && p.problem == nil && p.certificate.Leaf.VerifyHostname(host) != nil {
		p := notFor(p.certificate, secret, host)
		return name, p.reason, p.message
	}
	if p != nil && !slices.Contains(c.wants.hosts(name), host) {
		return name, CertificateNotReady, fmt.Sprintf("host %s is not the mapping's yet", host)
	}
	reason, message = c.state(name)
	return name, reason, message
}

// state is what there is to say of a certificate whoever asks.
func (c *Controller) state(name string) (reason, message string) {
	c.mu.Lock()
	p := c.provided[name]
	c.mu.Unlock()
	switch {
	case p == nil:
		return CertificateNotReady, "it is being provided"
	case p.problem != nil:
		return p.problem.reason, p.problem.message
	}
	if ok, why := c.distributor.Acked(config.CertificateType, name, ""); !ok {
		return CertificateNotReady, why
	}
	return "", ""
}

// CertificateChanges delivers the Routes for which the answer of LocalCertificate may have changed. There is one channel, for one reader.
func (c *Controller) CertificateChanges() <-chan event.GenericEvent { return c.routes }

// MappingCertificateChanges delivers the DomainMappings for which the answer of LocalCertificate or SecretCertificate may have changed. There is one
// channel, for one reader.
func (c *Controller) MappingCertificateChanges() <-chan event.GenericEvent { return c.mappings }

// news are the certificates that there may be something new to say of.
type news struct {
	ready chan struct{}
	// mu guards the rest. names is bounded by the number of certificates.
	mu    sync.Mutex
	names map[string]struct{}
}

func newNews() *news { return &news{ready: make(chan struct{}, 1), names: make(map[string]struct{})} }

func (n *news) add(names ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		n.names[name] = struct{}{}
	}
	select {
	case n.ready <- struct{}{}:
	default:
	}
}

func (n *news) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := slices.Sorted(maps.Keys(n.names))
	clear(n.names)
	return names
}

// observe tells the owners of certificates when there is news of them, until ctx ends.
func (c *Controller) observe(ctx context.Context) error {
	watch := c.distributor.Watch(config.CertificateType)
	defer watch.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for {
			names, err := watch.Next(ctx)
			if err != nil {
				return nil //nolint:nilerr // the end of ctx is the way to stop
			}
			c.news.add(names...)
		}
	})
	group.Go(func() error {
		told := make(map[string]string)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-c.news.ready:
			}
			for _, name := range c.news.take() {
				c.tell(ctx, name, told)
			}
		}
	})
	return group.Wait()
}

// tell sends events for the owners of a certificate. A renewal of which nothing is to be said wakes nobody: thousands of Routes can share
// one. What a Secret's is good for differs by host, and its owners are few.
func (c *Controller) tell(ctx context.Context, name string, told map[string]string) {
	owners := c.wants.usersOf(name)
	if len(owners) == 0 {
		delete(told, name)
		return
	}
	if _, secret := secretKey(name); !secret {
		reason, message := c.state(name)
		state := reason + ": " + message
		if told[name] == state {
			return
		}
		told[name] = state
	}
	for _, o := range owners {
		meta := metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name}
		channel, object := c.routes, client.Object(&servingv1.Route{ObjectMeta: meta})
		if o.mapping {
			channel, object = c.mappings, &servingv1beta1.DomainMapping{ObjectMeta: meta}
		}
		select {
		case <-ctx.Done():
			return
		case channel <- event.GenericEvent{Object: object}:
		}
	}
}
