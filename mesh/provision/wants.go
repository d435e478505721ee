package provision

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weft-dev/weft/mesh/config"
)

// owner is an object that wants certificates.
type owner struct {
	// mapping tells DomainMappings from Routes.
	mapping bool
	types.NamespacedName
}

// demand is what an owner wants: the name of the certificate for each host.
type demand struct {
	created time.Time
	hosts   map[string]string
}

// wantsOf reads what a Route or DomainMapping wants. Routes ask by the URLs of their status, which are the hosts that the mesh serves for
// them; a DomainMapping asks when its namespace owns the domain, because nobody else may say who answers for it.
func (c *Controller) wantsOf(o client.Object) (owner, *demand) {
	key := owner{NamespacedName: client.ObjectKeyFromObject(o)}
	d := &demand{created: o.GetCreationTimestamp().Time, hosts: make(map[string]string)}
	switch o := o.(type) {
	case *servingv1.Route:
		c.wantLocal(d, o.Namespace, hostOf(o.Status.URL))
		for i := range o.Status.Traffic {
			c.wantLocal(d, o.Namespace, hostOf(o.Status.Traffic[i].URL))
		}
	case *servingv1beta1.DomainMapping:
		key.mapping = true
		if !o.Status.GetCondition(servingv1beta1.DomainMappingConditionDomainClaimed).IsTrue() {
			break
		}
		if o.Spec.TLS != nil {
			d.hosts[o.Name] = config.SecretCertificate(o.Namespace, o.Spec.TLS.SecretName)
			break
		}
		c.wantLocal(d, o.Namespace, o.Name)
	}
	if !o.GetDeletionTimestamp().IsZero() || len(d.hosts) == 0 {
		return key, nil
	}
	return key, d
}

func (c *Controller) wantLocal(d *demand, namespace, host string) {
	if host == "" || strings.HasSuffix(host, c.local) || c.authority == nil || !c.authority.Permits(host) {
		return
	}
	d.hosts[host] = config.LocalCertificate(localName(namespace, host))
}

// localName is the DNS name of the certificate of the platform's authority for a host: a wildcard for all hosts of a namespace when the
// namespace is the second label, as in the default domain template, so that a new Route finds its certificate in place. Else it is the
// host: a wildcard for several namespaces would let one pretend to be the other.
func localName(namespace, host string) string {
	if _, parent, ok := strings.Cut(host, "."); ok && strings.HasPrefix(parent, namespace+".") {
		return "*." + parent
	}
	return host
}

// hostOf is the host of a URL, in lower case and without a port.
func hostOf(u *apis.URL) string {
	if u == nil {
		return ""
	}
	host := u.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(host)
}

// table is who wants which certificate for which host.
type table struct {
	// mu guards the rest.
	mu      sync.Mutex
	demands map[owner]*demand
	// users are the owners that want a certificate.
	users map[string]map[owner]struct{}
	// claims are the owners that have a host. Only the oldest decides who answers for it, as the mesh does with its routes.
	claims map[string]map[owner]struct{}
}

func newTable() *table {
	return &table{
		demands: make(map[owner]*demand), users: make(map[string]map[owner]struct{}), claims: make(map[string]map[owner]struct{}),
	}
}

// add is set for an owner that the table does not know yet.
func (t *table) add(o owner, d *demand) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.demands[o]; !known && d != nil {
		t.put(o, d)
	}
}

// set replaces what an owner wants, nil being nothing, and returns the certificates to which that makes a difference.
func (t *table) set(o owner, d *demand) (affected []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.demands[o]
	if old == nil && d == nil || old != nil && d != nil && maps.Equal(old.hosts, d.hosts) {
		return nil
	}
	names := make(map[string]struct{})
	if old != nil {
		delete(t.demands, o)
		for host, name := range old.hosts {
			release(t.users, name, o)
			release(t.claims, host, o)
			names[name] = struct{}{}
			t.rivals(host, names)
		}
	}
	if d != nil {
		t.put(o, d)
		for host := range d.hosts {
			t.rivals(host, names)
		}
	}
	return slices.Collect(maps.Keys(names))
}

// put enters a demand. The caller holds mu.
func (t *table) put(o owner, d *demand) {
	t.demands[o] = d
	for host, name := range d.hosts {
		take(t.users, name, o)
		take(t.claims, host, o)
	}
}

// rivals adds the certificates that the owners of a host want for it. The caller holds mu.
func (t *table) rivals(host string, names map[string]struct{}) {
	for o := range t.claims[host] {
		names[t.demands[o].hosts[host]] = struct{}{}
	}
}

func take(m map[string]map[owner]struct{}, name string, o owner) {
	if m[name] == nil {
		m[name] = make(map[owner]struct{}, 1)
	}
	m[name][o] = struct{}{}
}

func release(m map[string]map[owner]struct{}, name string, o owner) {
	delete(m[name], o)
	if len(m[name]) == 0 {
		delete(m, name)
	}
}

func (t *table) wanted(certificate string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.users[certificate]) > 0
}

// certificates lists all that are wanted.
func (t *table) certificates() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.users))
}

// usersOf lists the owners that want a certificate.
func (t *table) usersOf(certificate string) []owner {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.users[certificate]))
}

// hosts lists those for which a certificate is wanted by the owner that decides.
func (t *table) hosts(certificate string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var hosts []string
	for o := range t.users[certificate] {
		for host, name := range t.demands[o].hosts {
			if name == certificate && t.first(host) == o {
				hosts = append(hosts, host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// first is the oldest owner of a host. The caller holds mu.
func (t *table) first(host string) owner {
	return slices.MinFunc(slices.Collect(maps.Keys(t.claims[host])), func(a, b owner) int {
		return cmp.Or(t.demands[a].created.Compare(t.demands[b].created), cmp.Compare(a.String(), b.String()))
	})
}
