package config

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// Namespace is where the config maps of serving are.
const Namespace = "knative-serving"

// Options of a Store. The zero value works.
type Options struct {
	// Namespace of the config maps; Namespace by default.
	Namespace string
	// Domains are the names that the installation has given.
	Domains Domains
	// Logger gets edits that were refused; slog.Default() by default.
	Logger *slog.Logger
}

// Store holds the Snapshot in force. Its methods may be called from any goroutine.
type Store struct {
	options  Options
	snapshot atomic.Pointer[Snapshot]

	// mu serializes changes; readers of the snapshot take no lock.
	mu sync.Mutex
	// data is the content of each map that is in force.
	data map[string]map[string]string
	// invalid is why the present content of a map is not in force.
	invalid map[string]error
	// subscribers are told of changes to the maps that they named.
	subscribers []subscriber
}

type subscriber struct {
	names  []string
	events chan event.GenericEvent
}

// NewStore returns a Store that holds the defaults.
func NewStore(options Options) *Store {
	if options.Namespace == "" {
		options.Namespace = Namespace
	}
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	s := &Store{options: options, data: map[string]map[string]string{}, invalid: map[string]error{}}
	s.snapshot.Store(Default(options.Domains))
	return s
}

// Load is the Snapshot in force. It takes no lock.
func (s *Store) Load() *Snapshot { return s.snapshot.Load() }

// ToContext gives ctx the configuration in force, for the defaulting and validation of Knative's types.
func (s *Store) ToContext(ctx context.Context) context.Context { return s.Load().ToContext(ctx) }

// Changes returns a channel that gets an event after each change of one of the named maps, or of any map when none is named. An
// event that nobody has taken yet stands for all changes after it: a reader looks at Load, not at the event. The channel is
// never closed. It is made for source.Channel.
func (s *Store) Changes(names ...string) <-chan event.GenericEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := subscriber{names: names, events: make(chan event.GenericEvent, 1)}
	s.subscribers = append(s.subscribers, sub)
	return sub.events
}

// Set puts the data of one map in force; nil data is an absent map. Data that does not parse is refused with the reason, and what
// was in force stays. Maps that are not ours are ignored.
func (s *Store) Set(name string, data map[string]string) error {
	if !slices.Contains(Names(), name) {
		return nil
	}
	data = maps.Clone(data)
	delete(data, exampleKey)
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.Load().with(name, data, s.options.Domains)
	if err != nil {
		s.invalid[name] = err
		return err
	}
	delete(s.invalid, name)
	if maps.Equal(s.data[name], data) {
		return nil
	}
	s.data[name] = data
	s.snapshot.Store(next)
	s.announce(name)
	return nil
}

// Invalid is why the present content of a map is not in force, or nil.
func (s *Store) Invalid(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.invalid[name]
}

// announce tells the subscribers; s.mu is held.
func (s *Store) announce(name string) {
	changed := event.GenericEvent{Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.options.Namespace, Name: name}}}
	for _, sub := range s.subscribers {
		if len(sub.names) > 0 && !slices.Contains(sub.names, name) {
			continue
		}
		select {
		case sub.events <- changed:
		default:
		}
	}
}
