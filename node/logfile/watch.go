package logfile

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// watcher tells when a file may have grown or been replaced.
type watcher struct {
	changed chan struct{}
	notify  *fsnotify.Watcher
	done    sync.WaitGroup
}

// newWatcher watches the directory of path, because a watch on the file itself would stay with the old file when it is replaced.
func newWatcher(path string) (*watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching the log: %w", err)
	}
	if err := n.Add(filepath.Dir(path)); err != nil {
		_ = n.Close()
		return nil, fmt.Errorf("watching the log: %w", err)
	}
	w := &watcher{changed: make(chan struct{}, 1), notify: n}
	w.done.Go(w.run)
	return w, nil
}

func (w *watcher) run() {
	for {
		select {
		case _, open := <-w.notify.Events:
			if !open {
				return
			}
		case _, open := <-w.notify.Errors: // an overflow of the kernel's queue: look at the file
			if !open {
				return
			}
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) close() {
	_ = w.notify.Close()
	w.done.Wait()
}
