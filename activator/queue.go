package activator

import "github.com/weft-dev/weft/mesh/balance"

// Ticket is a parked request's place in the queue. It is a node of the list, so that leaving from the middle costs the same as
// from the front.
type Ticket struct {
	gate       *Gate
	prev, next *Ticket
	queued     bool
	// granted receives the endpoint at which a place has been taken for the request. It has room for one, so a grant never blocks.
	granted chan *balance.Endpoint
}

// queue is a first-in first-out list of parked requests. It does no locking.
type queue struct {
	head, tail *Ticket
	length     int
}

func (q *queue) pushBack(t *Ticket) {
	t.prev, t.next, t.queued = q.tail, nil, true
	if q.tail == nil {
		q.head = t
	} else {
		q.tail.next = t
	}
	q.tail = t
	q.length++
}

// pushFront is for a request that had its turn and lost it through no fault of its own.
func (q *queue) pushFront(t *Ticket) {
	t.prev, t.next, t.queued = nil, q.head, true
	if q.head == nil {
		q.tail = t
	} else {
		q.head.prev = t
	}
	q.head = t
	q.length++
}

// remove takes t out and reports whether it was in.
func (q *queue) remove(t *Ticket) bool {
	if !t.queued {
		return false
	}
	if t.prev == nil {
		q.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		q.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.prev, t.next, t.queued = nil, nil, false
	q.length--
	return true
}
