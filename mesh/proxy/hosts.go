package proxy

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"github.com/weft-dev/weft/mesh/config"
)

// shardCount divides the host table, so that a change of one route copies a small part of it and not thousands of entries.
const shardCount = 256

// hostTable finds virtual hosts. It is immutable: with returns a changed copy that shares what did not change.
type hostTable struct {
	seed   maphash.Seed
	shards [shardCount]map[hostKey]*virtualHost
	// wildcards is the number of "*." hosts; most tables have none and skip the search for them.
	wildcards int
}

type hostKey struct {
	visibility config.Visibility
	host       string
}

func newHostTable() *hostTable { return &hostTable{seed: maphash.MakeSeed()} }

func (t *hostTable) shard(host string) uint64 { return maphash.String(t.seed, host) % shardCount }

func (t *hostTable) get(key hostKey) *virtualHost { return t.shards[t.shard(key.host)][key] }

// with returns a table with changes made; a nil virtual host removes.
func (t *hostTable) with(changes map[hostKey]*virtualHost) *hostTable {
	next := *t
	copied := make(map[uint64]bool)
	for key, host := range changes {
		i := next.shard(key.host)
		if !copied[i] {
			copied[i] = true
			shard := make(map[hostKey]*virtualHost, len(next.shards[i])+1)
			maps.Copy(shard, next.shards[i])
			next.shards[i] = shard
		}
		if strings.HasPrefix(key.host, "*.") {
			_, had := next.shards[i][key]
			switch {
			case host != nil && !had:
				next.wildcards++
			case host == nil && had:
				next.wildcards--
			}
		}
		if host == nil {
			delete(next.shards[i], key)
		} else {
			next.shards[i][key] = host
		}
	}
	return &next
}

// lookup finds the virtual host of a request's Host header at a listener. Pods see the hosts of the cluster and the public ones,
// everybody else the public ones only. An exact name goes before a wildcard, a longer wildcard before a shorter.
func (t *hostTable) lookup(at config.Visibility, host string) *virtualHost {
	host = normalize(host)
	if v := t.visible(at, host); v != nil {
		return v
	}
	if t.wildcards == 0 {
		return nil
	}
	for rest := host; ; {
		_, after, found := strings.Cut(rest, ".")
		if !found {
			return nil
		}
		if v := t.visible(at, "*."+after); v != nil {
			return v
		}
		rest = after
	}
}

func (t *hostTable) visible(at config.Visibility, host string) *virtualHost {
	if at == config.Visibility_CLUSTER_LOCAL {
		if v := t.get(hostKey{config.Visibility_CLUSTER_LOCAL, host}); v != nil {
			return v
		}
	}
	return t.get(hostKey{config.Visibility_EXTERNAL, host})
}

// normalize removes the port and a final dot and lowers the case, without allocating for a host that is plain already.
func normalize(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// claims keeps which routes want which host, to give a host that several want to the route whose name sorts first, and to the
// next when that one goes.
type claims struct {
	byHost map[hostKey][]*virtualHost
}

func newClaims() *claims { return &claims{byHost: make(map[hostKey][]*virtualHost)} }

func (c *claims) add(key hostKey, v *virtualHost) {
	at, _ := slices.BinarySearchFunc(c.byHost[key], v, func(a, b *virtualHost) int { return strings.Compare(a.route, b.route) })
	c.byHost[key] = slices.Insert(c.byHost[key], at, v)
}

func (c *claims) remove(key hostKey, v *virtualHost) {
	left := slices.DeleteFunc(c.byHost[key], func(other *virtualHost) bool { return other == v })
	if len(left) == 0 {
		delete(c.byHost, key)
		return
	}
	c.byHost[key] = left
}

// winner is the virtual host that a host goes to, or nil.
func (c *claims) winner(key hostKey) *virtualHost {
	if list := c.byHost[key]; len(list) > 0 {
		return list[0]
	}
	return nil
}
