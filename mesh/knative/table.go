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

// owner is the object that hosts are compiled for.
type owner struct {
	kind kind
	types.NamespacedName
}

// kind of an owner, in words for the user.
type kind string

const (
	kindRoute   kind = "route"
	kindMapping kind = "domain mapping"
)

// String names the owner to the user.
func (o owner) String() string { return string(o.kind) + " " + o.NamespacedName.String() }

// compiled is an object and what it asks for, before hosts that others hold are taken out of it.
type compiled struct {
	key     owner
	created time.Time
	route   *config.Route
	// backends are the names that the route's splits refer to.
	backends []string
	// problem is what the object asks for and cannot have, in words for its user. The rest is compiled all the same.
	problem string
	// target is set for a mapping.
	target *destination
}

// before orders claims on the same host: the older object has it, and for equal age the one whose name comes first.
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

// table is the state over all Routes and mappings: who claims which host, who follows which host, and who needs which backend.
type table struct {
	// mu guards the rest.
	mu sync.Mutex
	// routes by key.
	routes map[owner]*compiled
	// claims holds those that ask for a host.
	claims map[string]map[owner]*compiled
	// followers holds the mappings whose target is a host.
	followers map[string]map[owner]struct{}
	// users holds those that name a backend.
	users map[string]map[owner]struct{}
}

func newTable() *table {
	return &table{
		routes:    make(map[owner]*compiled),
		claims:    make(map[string]map[owner]*compiled),
		followers: make(map[string]map[owner]struct{}),
		users:     make(map[string]map[owner]struct{}),
	}
}

// set replaces an object. It returns the routes to send, which are its own, those of others whose hosts it gave up or took, and those that
// follow its hosts; and the backends that nobody names any more.
func (t *table) set(c *compiled) (send []*config.Route, unused []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	affected, unused := t.drop(c.key)
	t.routes[c.key] = c
	for _, host := range c.hosts() {
		claim(t.claims, host, c.key, c)
		t.interested(host, affected)
	}
	if c.target != nil {
		claim(t.followers, c.target.host, c.key, struct{}{})
	}
	for _, backend := range c.backends {
		claim(t.users, backend, c.key, struct{}{})
	}
	unused = slices.DeleteFunc(unused, func(name string) bool { return len(t.users[name]) > 0 })
	affected[c.key] = struct{}{}
	return t.effective(affected), unused
}

// remove forgets an object. It returns the routes that change by that, and the backends that nobody names any more.
func (t *table) remove(key owner) (send []*config.Route, unused []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	affected, unused := t.drop(key)
	return t.effective(affected), unused
}

// drop takes an object out of all maps and returns the others that its hosts are of interest to. The caller holds mu.
func (t *table) drop(key owner) (affected map[owner]struct{}, unused []string) {
	affected = make(map[owner]struct{})
	old := t.routes[key]
	if old == nil {
		return affected, nil
	}
	delete(t.routes, key)
	for _, host := range old.hosts() {
		release(t.claims, host, key)
		t.interested(host, affected)
	}
	if old.target != nil {
		release(t.followers, old.target.host, key)
	}
	for _, backend := range old.backends {
		release(t.users, backend, key)
		if len(t.users[backend]) == 0 {
			unused = append(unused, backend)
		}
	}
	return affected, unused
}

// interested adds those that claim a host and those that follow it. The caller holds mu.
func (t *table) interested(host string, affected map[owner]struct{}) {
	for key := range t.claims[host] {
		affected[key] = struct{}{}
	}
	for key := range t.followers[host] {
		affected[key] = struct{}{}
	}
}

func claim[V any](m map[string]map[owner]V, name string, key owner, v V) {
	if m[name] == nil {
		m[name] = make(map[owner]V, 1)
	}
	m[name][key] = v
}

func release[V any](m map[string]map[owner]V, name string, key owner) {
	delete(m[name], key)
	if len(m[name]) == 0 {
		delete(m, name)
	}
}

// effective lists routes as they are sent, sorted by key. The caller holds mu.
func (t *table) effective(keys map[owner]struct{}) []*config.Route {
	var routes []*config.Route
	for _, key := range slices.SortedFunc(maps.Keys(keys), func(a, b owner) int {
		return cmp.Compare(a.String(), b.String())
	}) {
		if c := t.routes[key]; c != nil {
			route, _ := t.resolve(c)
			routes = append(routes, route)
		}
	}
	return routes
}

// resolve gives a mapping the rules of its target, takes out the hosts that older objects hold and says which these are. The caller holds
// mu.
func (t *table) resolve(c *compiled) (route *config.Route, conflict string) {
	if c.target != nil {
		return t.resolveMapping(c)
	}
	return t.own(c)
}

// own takes the hosts that older objects hold out of a route. The caller holds mu.
func (t *table) own(c *compiled) (route *config.Route, conflict string) {
	lost := make(map[string]owner)
	for _, host := range c.hosts() {
		for key, other := range t.claims[host] {
			if key != c.key && other.before(c) {
				lost[host] = key
				if conflict == "" {
					conflict = fmt.Sprintf("host %s belongs to %s, which is older", host, key)
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

// want is what has to be acknowledged for an object to be programmed, whether or not the table has this state of it already.
func (t *table) want(c *compiled) (version, conflict string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	route, conflict := t.resolve(c)
	return distribute.Version(route), conflict
}

// wantMapping is want for a mapping. It is empty when the target has no rules to take over.
func (t *table) wantMapping(c *compiled) (version, conflict string, empty bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	route, conflict := t.resolve(c)
	return distribute.Version(route), conflict, len(route.GetVirtualHosts()) == 0
}

// usersOf lists those that name a backend.
func (t *table) usersOf(backend string) []owner {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.users[backend]))
}
