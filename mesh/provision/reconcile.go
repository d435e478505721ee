package provision

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weft-dev/weft/mesh/certificate"
	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// lookAgain is the longest time without a look at the clock: timers stand still while a machine sleeps.
const lookAgain = 12 * time.Hour

var _ reconcile.Reconciler = (*Controller)(nil)

// Reconcile provides one certificate, or withdraws it when nobody wants it any more.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	name := req.Name
	if !c.wants.wanted(name) {
		c.mu.Lock()
		delete(c.provided, name)
		c.mu.Unlock()
		if err := c.distributor.Apply(nil, []distribute.Key{{TypeURL: config.CertificateType, Name: name}}); err != nil {
			return reconcile.Result{}, fmt.Errorf("withdrawing certificate %q: %w", name, err)
		}
		return reconcile.Result{}, nil
	}
	c.mu.Lock()
	old := c.provided[name]
	c.mu.Unlock()
	if old == nil {
		old = &provided{}
	}
	var next *provided
	var dnsNames []string
	if key, ok := secretKey(name); ok {
		secret, err := c.read(ctx, key)
		if err != nil {
			return reconcile.Result{}, err
		}
		hosts := c.wants.hosts(name)
		next = c.judge(secret, key, old, hosts)
		dnsNames = covered(next.certificate, hosts)
	} else {
		dnsNames = []string{strings.TrimPrefix(name, config.LocalCertificate(""))}
		next = c.issue(name, dnsNames[0], old)
	}
	if err := c.send(name, dnsNames, next.certificate); err != nil {
		return reconcile.Result{}, err
	}
	c.mu.Lock()
	c.provided[name] = next
	c.mu.Unlock()
	if next.problem != nil && (old.problem == nil || *old.problem != *next.problem) {
		c.log.Warn("a certificate cannot be used", "certificate", name, "reason", next.problem.reason, "error", next.problem.message)
	}
	c.news.add(name)
	return reconcile.Result{RequeueAfter: c.due(name, next)}, nil
}

// secretKey is the Secret that a certificate is in.
func secretKey(certificate string) (key types.NamespacedName, ok bool) {
	parts := strings.Split(certificate, "/")
	if len(parts) != 3 || certificate != config.SecretCertificate(parts[1], parts[2]) {
		return key, false
	}
	return types.NamespacedName{Namespace: parts[1], Name: parts[2]}, true
}

// read returns nil for a Secret that does not exist.
func (c *Controller) read(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	var secret corev1.Secret
	err := c.secrets.Get(ctx, key, &secret)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // judge says what is missing
	}
	if err != nil {
		return nil, fmt.Errorf("reading secret %s: %w", key, err)
	}
	return &secret, nil
}

// judge decides what is presented for hosts now that a Secret looks like this: what is in it, or, if that is of no use, what was presented
// before.
func (c *Controller) judge(secret *corev1.Secret, key types.NamespacedName, old *provided, hosts []string) *provided {
	found, p := c.inspect(secret, key)
	if p == nil {
		p = lost(found, key, covered(old.certificate, hosts))
	}
	switch {
	case p == nil:
		return &provided{certificate: found}
	case p.reason == CertificateNotForHost:
		p.message += "; the certificate of before stays in use"
	case found != nil && (old.certificate == nil || !c.now().Before(old.certificate.Leaf.NotAfter)):
		// Nothing better is at hand, and clients that are told of an expired certificate know more than those that are told of none.
		return &provided{certificate: found, problem: p}
	case old.certificate != nil:
		p.message += "; the certificate of before stays in use"
	}
	return &provided{certificate: old.certificate, problem: p}
}

// inspect says what is wrong with a Secret. A certificate beside a problem is at the wrong time, and right in all else.
func (c *Controller) inspect(secret *corev1.Secret, key types.NamespacedName) (*tls.Certificate, *problem) {
	switch {
	case secret == nil:
		return nil, &problem{SecretNotFound, fmt.Sprintf("Secret %q does not exist in namespace %q", key.Name, key.Namespace)}
	case secret.Type != corev1.SecretTypeTLS:
		return nil, &problem{SecretInvalid, fmt.Sprintf("Secret %q has type %s, not %s", key.Name, secret.Type, corev1.SecretTypeTLS)}
	}
	found, err := certificate.ParsePEM(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, &problem{SecretInvalid, fmt.Sprintf("Secret %q: %v", key.Name, err)}
	}
	now := c.now()
	switch leaf := found.Leaf; {
	case !now.Before(leaf.NotAfter):
		return found, &problem{CertificateExpired, fmt.Sprintf("the certificate in Secret %q expired on %s", key.Name, date(leaf.NotAfter))}
	case now.Before(leaf.NotBefore):
		return found, &problem{CertificateNotYetValid, fmt.Sprintf("the certificate in Secret %q is not valid before %s", key.Name, date(leaf.NotBefore))}
	}
	return found, nil
}

// lost says which of the hosts a new certificate is not for.
func lost(found *tls.Certificate, key types.NamespacedName, hosts []string) *problem {
	for _, host := range hosts {
		if found.Leaf.VerifyHostname(host) != nil {
			return notFor(found, key.Name, host)
		}
	}
	return nil
}

func notFor(found *tls.Certificate, secret, host string) *problem {
	return &problem{CertificateNotForHost, fmt.Sprintf(
		"the certificate in Secret %q is for %s, and not for %s", secret, strings.Join(found.Leaf.DNSNames, ", "), host)}
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// covered are the hosts that a certificate is valid for.
func covered(c *tls.Certificate, hosts []string) []string {
	var out []string
	for _, host := range hosts {
		if c != nil && c.Leaf.VerifyHostname(host) == nil {
			out = append(out, host)
		}
	}
	return out
}

// issue makes a certificate of the platform's own authority, or keeps the one that there is until two thirds of its time are over.
func (c *Controller) issue(name, dnsName string, old *provided) *provided {
	if old.certificate != nil && c.now().Before(renewal(old.certificate.Leaf)) {
		return old
	}
	issued, err := c.authority.Issue(dnsName)
	if err != nil {
		return &provided{certificate: old.certificate, problem: &problem{CertificateProvisionFailed, err.Error()}}
	}
	c.log.Info("certificate issued", "certificate", name, "expires", date(issued.Leaf.NotAfter))
	return &provided{certificate: issued}
}

// renewal is when to replace a certificate of the platform's own authority.
func renewal(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
}

// send hands a certificate to the proxies. One that is for none of the hosts is taken from them.
func (c *Controller) send(name string, dnsNames []string, presented *tls.Certificate) error {
	if presented == nil || len(dnsNames) == 0 {
		if err := c.distributor.Apply(nil, []distribute.Key{{TypeURL: config.CertificateType, Name: name}}); err != nil {
			return fmt.Errorf("withdrawing certificate %q: %w", name, err)
		}
		return nil
	}
	resource, err := certificate.Resource(name, dnsNames, presented)
	if err == nil {
		err = c.distributor.Apply([]config.Resource{resource}, nil)
	}
	if err != nil {
		return fmt.Errorf("distributing certificate %q: %w", name, err)
	}
	return nil
}

// due is the time until the clock makes a difference to a certificate.
func (c *Controller) due(name string, p *provided) time.Duration {
	if p.certificate == nil {
		return 0 // A Secret has to change, which is watched.
	}
	leaf, now := p.certificate.Leaf, c.now()
	at := leaf.NotAfter
	if _, secret := secretKey(name); !secret {
		at = renewal(leaf)
		if p.problem != nil {
			at = now.Add(time.Minute)
		}
	} else if now.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	if !now.Before(at) {
		return 0
	}
	return min(at.Sub(now), lookAgain)
}

// problem is why a certificate is not what it should be.
type problem struct{ reason, message string }
