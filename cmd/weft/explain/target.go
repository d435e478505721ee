package explain

import (
	"fmt"
	"strings"
)

// Kind is a kind of object that can be explained, by the word that answers use.
type Kind string

// The kinds.
const (
	Service       Kind = "service"
	Configuration Kind = "configuration"
	Revision      Kind = "revision"
	Route         Kind = "route"
	DomainMapping Kind = "domainmapping"
	Pod           Kind = "pod"
)

// spellings are kubectl's spellings of each kind, without plurals and groups.
func spellings() map[Kind][]string {
	return map[Kind][]string{
		Service:       {"service", "ksvc", "kservice", "svc"},
		Configuration: {"configuration", "config", "cfg"},
		Revision:      {"revision", "rev"},
		Route:         {"route", "rt"},
		DomainMapping: {"domainmapping", "dm"},
		Pod:           {"pod", "po"},
	}
}

// Target is the object that a user asks about.
type Target struct {
	Kind      Kind
	Namespace string
	Name      string
}

// String is TYPE/NAME.
func (t Target) String() string { return string(t.Kind) + "/" + t.Name }

// ParseTarget reads what kubectl accepts, TYPE/NAME or TYPE NAME. A name alone is that of a Service.
func ParseTarget(args []string, namespace string) (Target, error) {
	var kind, name string
	switch len(args) {
	case 1:
		var found bool
		if kind, name, found = strings.Cut(args[0], "/"); !found {
			kind, name = string(Service), args[0]
		}
	case 2:
		kind, name = args[0], args[1]
	}
	if name == "" || strings.Contains(name, "/") {
		return Target{}, fmt.Errorf("one object is needed, as TYPE/NAME or TYPE NAME, for example ksvc/hello")
	}
	k, ok := parseKind(kind)
	if !ok {
		return Target{}, fmt.Errorf("type %q cannot be explained: use service, configuration, revision, route, domainmapping or pod", kind)
	}
	return Target{Kind: k, Namespace: namespace, Name: name}, nil
}

func parseKind(s string) (Kind, bool) {
	// A group says no more than the name: there is one kind of each.
	s, _, _ = strings.Cut(strings.ToLower(s), ".")
	for kind, list := range spellings() {
		for _, spelling := range list {
			if s == spelling || s == spelling+"s" {
				return kind, true
			}
		}
	}
	return "", false
}
