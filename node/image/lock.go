package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked says that another process, or another call in this one, holds the lock.
var errLocked = errors.New("locked")

// lockRetry is how often lockContext asks again. Garbage collection waits for pulls, which take seconds, so this is no hot path.
const lockRetry = 50 * time.Millisecond

// fileLock is an advisory lock on an open file. The kernel releases it when the process dies, however it dies.
type fileLock struct{ f *os.File }

// openLock opens the lock file and applies how, which is unix.LOCK_SH or unix.LOCK_EX, perhaps with unix.LOCK_NB.
func openLock(path string, how int) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR { //nolint:errorlint // a raw errno
			break
		}
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("locking %q: %w", path, err)
	}
	return &fileLock{f: f}, nil
}

// lockShared waits for a lock that others may share.
func lockShared(path string) (*fileLock, error) { return openLock(path, unix.LOCK_SH) }

// lockExclusive waits for a lock that nobody shares.
func lockExclusive(path string) (*fileLock, error) { return openLock(path, unix.LOCK_EX) }

// tryLock takes the exclusive lock or returns errLocked at once.
func tryLock(path string) (*fileLock, error) { return openLock(path, unix.LOCK_EX|unix.LOCK_NB) }

// lockContext takes the exclusive lock, waiting until ctx ends.
func lockContext(ctx context.Context, path string) (*fileLock, error) {
	ticker := time.NewTicker(lockRetry)
	defer ticker.Stop()
	for {
		l, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %q: %w", path, ctx.Err())
		case <-ticker.C:
		}
	}
}

// unlock releases the lock. Closing the last descriptor is what releases it, so there is no error to handle.
func (l *fileLock) unlock() { _ = l.f.Close() }
