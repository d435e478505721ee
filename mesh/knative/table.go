package knative

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// compiled is a Route and what it asks for, before hosts that others hold are taken out of it.
type compiled struct {
	key     types.NamespacedName
	created time.Time
	route   *config.Route
	// backends are the names that the route's splits refer to.
	backends []string
}

// before orders claims on the same host: the older Route has it, and for equal age the one whose name comes first.
func (c *compiled) before(other *compiled) bool {
	return cmp.Or(c.created.Compare(other.created), cmp.Compare(c.key.String(), other.key.String())) < 0
}

// hosts lists every host of the route.
func (c *compiled) hosts() []string {
	var hosts []string
	for _, vh := range c.route.GetVirtualHosts() {
		hosts = append(hosts, vh.GetHosts()...)
	}
	return hosts
}

// table is the state over all Routes: who claims which host, and which Routes need which backend.
type table struct {
	// mu guards the rest.
	mu sync.Mutex
	// routes by key.
	routes map[types.NamespacedName]*compiled
	// claims holds the Routes that ask for a host.
	claims map[string]map[types.NamespacedName]*compiled
	// users holds the Routes that name a backend.
	users map[string]map[types.NamespacedName]struct{}
}

func newTable() *table {
	return &table{
		routes: make(map[types.NamespacedName]*compiled),
		claims: make(map[string]map[types.NamespacedName]*compiled),
		users:  make(map[string]map[types.NamespacedName]struct{}),
	}
}

// set replaces a Route. It returns the routes to send, which are this one and others whose hosts it gave up or took, and the backends that no
// Route names any more.
func (t *table) set(c *compiled) (send []*config.Route, unused []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	affected, unused := t.drop(c.key)
	t.routes[c.key] = c
	for _, host := range c.hosts() {
		claim(t.claims, host, c.key, c)
		for key := range t.claims[host] {
			affected[key] = struct{}{}
		}
	}
	for _, backend := range c.backends {
		claim(t.users, backend, c.key, struct{}{})
	}
	unused = slices.DeleteFunc(unused, func(name string) bool { return len(t.users[name]) > 0 })
	affected[c.key] = struct{}{}
	return t.effective(affected), unused
}

// remove forgets a Route. It returns the routes that get hosts by that, and the backends that no Route names any more.
func (t *table) remove(key types.NamespacedName) (send []*config.Route, unused []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	affected, unused := t.drop(key)
	return t.effective(affected), unused
}

// drop takes a Route out of all maps and returns the Routes that wanted a host of it too. The caller holds mu.
func (t *table) drop(key types.NamespacedName) (affected map[types.NamespacedName]struct{}, unused []string) {
	affected = make(map[types.NamespacedName]struct{})
	old := t.routes[key]
	if old == nil {
		return affected, nil
	}
	delete(t.routes, key)
	for _, host := range old.hosts() {
		release(t.claims, host, key)
		for other := range t.claims[host] {
			affected[other] = struct{}{}
		}
	}
	for _, backend := range old.backends {
		release(t.users, backend, key)
		if len(t.users[backend]) == 0 {
			unused = append(unused, backend)
		}
	}
	return affected, unused
}

func claim[V any](m map[string]map[types.NamespacedName]V, name string, key types.NamespacedName, v V) {
	if m[name] == nil {
		m[name] = make(map[types.NamespacedName]V, 1)
	}
	m[name][key] = v
}

func release[V any](m map[string]map[types.NamespacedName]V, name string, key types.NamespacedName) {
	delete(m[name], key)
	if len(m[name]) == 0 {
		delete(m, name)
	}
}

// effective lists Routes as they are sent, sorted by key. The caller holds mu.
func (t *table) effective(keys map[types.NamespacedName]struct{}) []*config.Route {
	var routes []*config.Route
	for _, key := range slices.SortedFunc(maps.Keys(keys), func(a, b types.NamespacedName) int {
		return cmp.Compare(a.String(), b.String())
	}) {
		if c := t.routes[key]; c != nil {
			route, _ := t.resolve(c)
			routes = append(routes, route)
		}
	}
	return routes
}

// resolve takes the hosts that older Routes hold out of a Route and says which these are. The caller holds mu.
func (t *table) resolve(c *compiled) (route *config.Route, conflict string) {
	lost := make(map[string]types.NamespacedName)
	for _, host := range c.hosts() {
		for key, other := range t.claims[host] {
			if key != c.key && other.before(c) {
				lost[host] = key
				if conflict == "" {
					conflict = fmt.Sprintf("host %s belongs to route %s, which is older", host, key)
				}
			}
		}
	}
	if len(lost) == 0 {
		return c.route, ""
	}
	route = proto.CloneOf(c.route)
	for _, vh := range route.VirtualHosts {
		vh.Hosts = slices.DeleteFunc(vh.Hosts, func(host string) bool { _, ok := lost[host]; return ok })
	}
	route.VirtualHosts = slices.DeleteFunc(route.VirtualHosts, func(vh *config.VirtualHost) bool { return len(vh.GetHosts()) == 0 })
	return route, conflict
}

// want is what has to be acknowledged for a Route to be programmed, whether or not the table has this state of it already.
func (t *table) want(c *compiled) (version, conflict string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	route, conflict := t.resolve(c)
	return distribute.Version(route), conflict
}

// usersOf lists the Routes that name a backend.
func (t *table) usersOf(backend string) []types.NamespacedName {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.users[backend]))
}
