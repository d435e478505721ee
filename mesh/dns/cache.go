package dns

import (
	"container/list"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

// Bounds of the time for which forwarded answers are kept. The upper one is for positive answers, the middle for negative ones.
const (
	maxPositive = time.Hour
	maxNegative = 5 * time.Minute
)

// question is all of a query that its answer depends on.
type question struct {
	name             string
	qtype, qclass    uint16
	dnssec, checking bool
}

func questionOf(query *mdns.Msg) question {
	q := question{
		name: mdns.CanonicalName(query.Question[0].Name), qtype: query.Question[0].Qtype, qclass: query.Question[0].Qclass,
		checking: query.CheckingDisabled,
	}
	if opt := query.IsEdns0(); opt != nil {
		q.dnssec = opt.Do()
	}
	return q
}

// cache keeps forwarded answers, the least recently used of which make room for new ones.
type cache struct {
	size int
	now  func() time.Time

	// mu guards the rest.
	mu      sync.Mutex
	entries map[question]*list.Element
	// order has the most recently used in front.
	order *list.List
}

type cached struct {
	question question
	message  *mdns.Msg
	stored   time.Time
	expires  time.Time
}

func newCache(size int) *cache {
	return &cache{size: size, now: time.Now, entries: make(map[question]*list.Element), order: list.New()}
}

// get returns a copy with the time that has passed taken from the records' lives, or nil.
func (c *cache) get(q question) *mdns.Msg {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	element := c.entries[q]
	if element == nil {
		return nil
	}
	entry, _ := element.Value.(*cached)
	if !now.Before(entry.expires) {
		c.order.Remove(element)
		delete(c.entries, q)
		return nil
	}
	c.order.MoveToFront(element)
	message := entry.message.Copy()
	age := uint32(now.Sub(entry.stored) / time.Second)
	for _, section := range [][]mdns.RR{message.Answer, message.Ns, message.Extra} {
		for _, rr := range section {
			rr.Header().Ttl -= min(age, rr.Header().Ttl)
		}
	}
	return message
}

// put keeps an answer for as long as its records say. Failures are not kept.
func (c *cache) put(q question, message *mdns.Msg) {
	life := lifetime(message)
	if life <= 0 {
		return
	}
	now := c.now()
	entry := &cached{question: q, message: message.Copy(), stored: now, expires: now.Add(life)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if element := c.entries[q]; element != nil {
		element.Value = entry
		c.order.MoveToFront(element)
		return
	}
	c.entries[q] = c.order.PushFront(entry)
	if c.order.Len() > c.size {
		oldest, _ := c.order.Remove(c.order.Back()).(*cached)
		delete(c.entries, oldest.question)
	}
}

// lifetime is how long an answer may be kept: the shortest life of its records or, for the absence of records, what the zone's SOA says
// (RFC 2308, section 5). It is zero for what must not be kept.
func lifetime(message *mdns.Msg) time.Duration {
	if message.Truncated || message.Rcode != mdns.RcodeSuccess && message.Rcode != mdns.RcodeNameError {
		return 0
	}
	if len(message.Answer) == 0 || message.Rcode == mdns.RcodeNameError {
		for _, rr := range message.Ns {
			if soa, ok := rr.(*mdns.SOA); ok {
				return min(time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second, maxNegative)
			}
		}
		return 0
	}
	life := maxPositive
	for _, section := range [][]mdns.RR{message.Answer, message.Ns} {
		for _, rr := range section {
			life = min(life, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	return life
}
