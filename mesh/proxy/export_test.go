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
