package proxy

// Waiting is the number of requests parked at a backend.
func (p *Proxy) Waiting(name string) int {
	if b := p.backends.find(name); b != nil {
		return b.Gate.Waiting()
	}
	return 0
}
