package volume

import (
	"context"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// defaultExpiration is the API's default for tokens whose lifetime is not given. A token is renewed after renewAfter of its
// lifetime, or after maxAge when it lives longer.
const (
	defaultExpiration = int64(3600)
	renewAfter        = 0.8
	maxAge            = 24 * time.Hour
)

// tokenCache keeps the tokens of a pod, so that writing a volume again does not ask for new ones. The zero value is empty.
type tokenCache struct {
	// mu guards tokens.
	mu     sync.Mutex
	tokens map[string]issued
}

type issued struct {
	value string
	renew time.Time
}

// next is when the first token has to be renewed, or zero without tokens.
func (c *tokenCache) next() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first time.Time
	for _, t := range c.tokens {
		if first.IsZero() || t.renew.Before(first) {
			first = t.renew
		}
	}
	return first
}

func (c *tokenCache) get(id string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tokens[id]
	return t.value, ok && time.Now().Before(t.renew)
}

func (c *tokenCache) put(id string, t issued) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens == nil {
		c.tokens = map[string]issued{}
	}
	c.tokens[id] = t
}

// token returns the token of a projection, asking for a new one when there is none or it has to be renewed.
func (s *Set) token(ctx context.Context, pod *v1.Pod, p *v1.ServiceAccountTokenProjection, id string) ([]byte, error) {
	if value, ok := s.tokens.get(id); ok {
		return []byte(value), nil
	}
	seconds := defaultExpiration
	if p.ExpirationSeconds != nil {
		seconds = *p.ExpirationSeconds
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	began := time.Now()
	answer, err := s.options.Tokens.Token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, req)
	if err != nil {
		return nil, fmt.Errorf("failed to fetch token: %w", err) // kubelet's words
	}
	s.tokens.put(id, issued{value: answer.Status.Token, renew: renewal(began, answer.Status.ExpirationTimestamp)})
	return []byte(answer.Status.Token), nil
}

func renewal(began time.Time, expires metav1.Time) time.Time {
	life := expires.Sub(began)
	return began.Add(min(time.Duration(float64(life)*renewAfter), maxAge))
}
