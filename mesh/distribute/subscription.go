package distribute

// wildcard is the resource name that subscribes to every resource of a type.
const wildcard = "*"

// subscription is what one proxy wants of one type and what it has of it. The Server's mu guards it.
type subscription struct {
	// all is set by a wildcard subscription; names are the others.
	all   bool
	names map[string]struct{}
	// held is what the proxy was sent, by name.
	held map[string]holding
	// pending are names whose content may differ from what the proxy was sent.
	pending map[string]struct{}
	// alone are names that were part of a rejected response with others, and are sent again in a response of their own, so that
	// one bad resource does not keep good ones from the proxy.
	alone map[string]struct{}
	// answer is set until the first response, which is sent even when empty: it tells the proxy that it knows all there is.
	answer bool
}

// holding is the state of one resource at one proxy.
type holding struct {
	// sent is the version last sent, or named by the proxy when it connected.
	sent string
	// acked is the version last accepted.
	acked string
	// rejection is what the proxy said against the version sent, if it did.
	rejection string
}

func newSubscription() *subscription {
	return &subscription{
		names:   make(map[string]struct{}),
		held:    make(map[string]holding),
		pending: make(map[string]struct{}),
		alone:   make(map[string]struct{}),
		answer:  true,
	}
}

func (u *subscription) wants(name string) bool {
	if u.all {
		return true
	}
	_, ok := u.names[name]
	return ok
}

// subscribe adds names and marks what they bring.
func (u *subscription) subscribe(names []string, resources map[string]*entry) {
	for _, name := range names {
		if name == wildcard {
			u.all = true
			for name := range resources {
				u.pending[name] = struct{}{}
			}
			continue
		}
		u.names[name] = struct{}{}
		u.pending[name] = struct{}{}
		// A holding, though an empty one: a name that does not exist is then answered as removed, and the proxy need not wait.
		if _, ok := u.held[name]; !ok {
			u.held[name] = holding{}
		}
	}
}

// unsubscribe forgets names: the proxy drops them by itself, and gets them anew when it asks again.
func (u *subscription) unsubscribe(names []string) {
	for _, name := range names {
		if name == wildcard {
			u.all = false
		} else {
			delete(u.names, name)
		}
	}
	for name := range u.held {
		if !u.wants(name) {
			delete(u.held, name)
			delete(u.pending, name)
			delete(u.alone, name)
		}
	}
}

// restore takes over what a proxy says it holds from an earlier connection.
func (u *subscription) restore(versions map[string]string) {
	for name, version := range versions {
		u.held[name] = holding{sent: version, acked: version}
		u.pending[name] = struct{}{}
	}
}
