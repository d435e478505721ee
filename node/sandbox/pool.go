package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/weft-dev/weft/internal/instance"
)

// DefaultSize is the number of warm sandboxes that a Pool keeps when Options does not say.
const DefaultSize = 8

// quiet is how long no sandbox must have been acquired before the pool is refilled: longer than a cold start, so that making
// the next sandbox never takes a processor from the pod that just got the last one.
const quiet = 250 * time.Millisecond

// Options configure a Pool.
type Options struct {
	// Instance names the bridge, its networks, the nftables table and the state directory.
	Instance instance.Instance
	// Size is the number of warm sandboxes, DefaultSize when zero. A negative size keeps none.
	Size int
	// Log defaults to discarding.
	Log *slog.Logger
}

// Pool hands out sandboxes and keeps some ready. It is the only writer of the instance's bridge and of its directory of
// namespaces. All methods may be called concurrently.
type Pool struct {
	size    int
	log     *slog.Logger
	dir     string
	network *network
	// wake tells Run that a sandbox was taken; it holds at most one message.
	wake chan struct{}

	// mu guards everything below. It is never held across a system call slower than a rename.
	mu        sync.Mutex
	addresses *addresses
	warm      []*entry
	bound     map[string]*entry
	acquired  time.Time
}

// NewPool makes the bridge and the firewall rules, or brings those that exist into shape, and finds the sandboxes that an earlier
// process of this instance left. Those stay untouched until Adopt says which of them are in use.
func NewPool(opts Options) (*Pool, error) {
	if err := opts.Instance.Validate(); err != nil {
		return nil, err
	}
	p := &Pool{
		size: opts.Size, log: opts.Log, dir: directory(opts.Instance),
		wake: make(chan struct{}, 1), bound: map[string]*entry{}, addresses: newAddresses(opts.Instance),
	}
	if p.size == 0 {
		p.size = DefaultSize
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of namespaces: %w", err)
	}
	var err error
	if p.network, err = newNetwork(opts.Instance); err != nil {
		return nil, err
	}
	if err := installRules(opts.Instance); err != nil {
		p.network.close()
		return nil, err
	}
	if err := p.load(); err != nil {
		p.network.close()
		return nil, err
	}
	return p, nil
}

// Run keeps the pool filled until ctx ends. Warm sandboxes outlive it: the next process of the instance finds them.
func (p *Pool) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		for ctx.Err() == nil {
			wait, full := p.refillIn(time.Now())
			if full {
				break
			}
			if wait > 0 {
				timer.Reset(wait)
				break
			}
			if err := p.fill(); err != nil {
				p.log.Error("Making a warm sandbox failed", "error", err)
				timer.Reset(time.Second)
				break
			}
		}
	}
}

// refillIn decides how long to wait before the next warm sandbox is made. A pool that is nearly empty is refilled at once:
// under a steady stream of new pods somebody has to pay for their sandboxes, and better this goroutine than a cold start.
func (p *Pool) refillIn(now time.Time) (wait time.Duration, full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.warm) >= p.size {
		return 0, true
	}
	if len(p.warm) <= p.size/4 || p.acquired.IsZero() {
		return 0, false
	}
	return quiet - now.Sub(p.acquired), false
}

func (p *Pool) fill() error {
	e, err := p.make()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warm = append(p.warm, e)
	return nil
}

// Acquire gives the sandbox of id, a new one unless id has one already. With a warm sandbox at hand it costs one rename, which is
// also what binds the sandbox to id on disk. An id is a file name that does not begin with a dot.
func (p *Pool) Acquire(ctx context.Context, id string) (*Sandbox, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, ok, err := p.take(id)
	if ok || err != nil {
		return s, err
	}
	p.log.Debug("No warm sandbox, making one", "sandbox", id)
	e, err := p.make()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other, ok := p.bound[id]; ok { // another Acquire of the same id was faster
		p.warm = append(p.warm, e)
		return other.sandbox(), nil
	}
	return p.bind(e, id)
}

// take gives the sandbox that id has or a warm one; ok is false when there is neither.
func (p *Pool) take(id string) (s *Sandbox, ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acquired = time.Now()
	defer p.notify()
	if e, ok := p.bound[id]; ok {
		e.claimed = true
		return e.sandbox(), true, nil
	}
	if len(p.warm) == 0 {
		return nil, false, nil
	}
	e := p.warm[0] // the oldest, which adoption and address order make the most predictable
	p.warm = p.warm[1:]
	s, err = p.bind(e, id)
	return s, true, err
}

// bind names the directory of a warm entry after id. It wants p.mu held.
func (p *Pool) bind(e *entry, id string) (*Sandbox, error) {
	if err := e.rename(filepath.Join(p.dir, id)); err != nil {
		p.warm = append(p.warm, e)
		return nil, fmt.Errorf("binding a sandbox to %q: %w", id, err)
	}
	e.claimed = true
	p.bound[id] = e
	return e.sandbox(), nil
}

// Lookup returns the sandbox of id if it has one.
func (p *Pool) Lookup(id string) (*Sandbox, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.bound[id]
	if !ok {
		return nil, false
	}
	return e.sandbox(), true
}

// Release destroys the sandbox of id. An id without one is no error. After an error the sandbox is still there and Release may be
// called again.
func (p *Pool) Release(ctx context.Context, id string) error {
	p.mu.Lock()
	e, ok := p.bound[id]
	delete(p.bound, id)
	p.mu.Unlock()
	if !ok {
		return nil
	}
	err := ctx.Err()
	if err == nil {
		err = p.destroy(e)
	}
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.bound[id] = e
		return fmt.Errorf("releasing sandbox %q: %w", id, err)
	}
	return nil
}

// Adopt keeps the sandboxes of ids and destroys every other one that an earlier process left, with interfaces of the bridge that
// belong to none. It is called once, before or while pods start: sandboxes acquired meanwhile stay. An id whose sandbox is
// gone, as after a reboot, is no error; Lookup tells.
func (p *Pool) Adopt(ctx context.Context, ids []string) error {
	p.mu.Lock()
	for _, id := range ids {
		if e, ok := p.bound[id]; ok {
			e.claimed = true
		}
	}
	var orphans []string
	for id, e := range p.bound {
		if !e.claimed {
			orphans = append(orphans, id)
		}
	}
	p.mu.Unlock()
	var errs []error
	for _, id := range orphans {
		errs = append(errs, p.Release(ctx, id))
	}
	if len(orphans) > 0 {
		p.log.Info("Removed sandboxes of pods that are gone", "count", len(orphans))
	}
	errs = append(errs, p.removeStrayLinks())
	return errors.Join(errs...)
}

// removeStrayLinks deletes interfaces of the bridge whose sandbox is gone, as when the machine stopped in the middle of Release.
func (p *Pool) removeStrayLinks() error {
	names, err := p.network.ports()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if addr, ok := p.network.addressOf(name); !ok || !p.reserved(addr) {
			errs = append(errs, p.network.deleteLink(name))
		}
	}
	return errors.Join(errs...)
}

// notify wakes Run without waiting for it.
func (p *Pool) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func checkID(id string) error {
	if id == "" || strings.HasPrefix(id, ".") || strings.ContainsRune(id, '/') || len(id) > 255 {
		return fmt.Errorf("sandbox id %q must be a file name that does not begin with a dot", id)
	}
	return nil
}
