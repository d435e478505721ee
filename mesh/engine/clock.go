package engine

import (
	"net/http"
	"time"
)

// clock is the text of a Date field.
type clock struct {
	second int64
	text   string
}

// date is the value of Date for a response that has none. It is made once a second.
func (s *Server) date() string {
	now := time.Now()
	if c := s.clock.Load(); c != nil && c.second == now.Unix() {
		return c.text
	}
	c := &clock{second: now.Unix(), text: now.UTC().Format(http.TimeFormat)}
	s.clock.Store(c)
	return c.text
}
