package proxy

// Waiting is the number of requests parked at a backend.
func (p *Proxy) Waiting(name string) int {
	if b := p.backends.find(name); b != nil {
		return b.Gate.Waiting()
	}
	return 0
}

// InFlight is the number of requests at a backend's instances and parked before them.
func (p *Proxy) InFlight(name string) int {
	if b := p.backends.find(name); b != nil {
		return int(b.Measure.Load.Present())
	}
	return 0
}

// Refusals is the number of connections in a row that the first instance of a backend has refused.
func (p *Proxy) Refusals(name string) int {
	if b := p.backends.find(name); b != nil && len(b.set.Endpoints()) > 0 {
		return b.set.Endpoints()[0].Refusals()
	}
	return 0
}

// Backends is the number of backends that any resource names.
func (p *Proxy) Backends() int {
	p.backends.mu.Lock()
	defer p.backends.mu.Unlock()
	return len(p.backends.byName)
}
