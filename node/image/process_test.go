package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// helperEnv makes the test binary a second process on a store: "<operation> <directory> <reference>".
const helperEnv = "WEFT_IMAGE_TEST_HELPER"

// TestHelper is no test of its own: it is what start runs in the second process.
func TestHelper(t *testing.T) {
	t.Parallel()
	if job := os.Getenv(helperEnv); job != "" {
		if err := helper(t.Context(), strings.Fields(job)); err != nil {
			t.Fatal(err)
		}
	}
}

// helper is what the second process does.
func helper(ctx context.Context, job []string) error {
	s, err := Open(job[1], Options{})
	if err != nil {
		return err
	}
	switch job[0] {
	case "pull":
		_, err = s.Pull(ctx, job[2], PullOptions{})
	case "remove":
		_, err = s.Remove(ctx, job[2])
	case "tags":
		for i := range 50 {
			if err := s.Tag(ctx, job[2], fmt.Sprintf("dev.local/%s:%d", job[3], i)); err != nil {
				return err
			}
		}
	}
	return err
}

// start runs the helper in a process of its own.
func start(t *testing.T, job ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), must(os.Executable()), "-test.run=^TestHelper$")
	cmd.Env = append(os.Environ(), helperEnv+"="+strings.Join(job, " "))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestTwoProcessesShareAStore(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	ref := reg.push(t, "app:v1", newImage(t, layer(t, file("a", "1"))))
	s := newStore(t)
	if _, err := s.Resolve(t.Context(), ref); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Resolve in an empty store: %v", err)
	}
	if err := start(t, "pull", s.dir, ref).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), ref); err != nil {
		t.Errorf("Resolve of what the other process pulled: %v", err)
	}
	first, second := start(t, "tags", s.dir, ref, "first"), start(t, "tags", s.dir, ref, "second")
	for i := range 50 {
		if err := s.Tag(t.Context(), ref, fmt.Sprintf("dev.local/third:%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(first.Wait(), second.Wait()); err != nil {
		t.Fatal(err)
	}
	images := must(s.List(t.Context()))
	if len(images) != 1 || len(images[0].Names) != 152 { // 150 and the two of the pull
		t.Errorf("after 150 changes by three writers the index has %d images, the first with %d names", len(images), len(images[0].Names))
	}
	if err := start(t, "remove", s.dir, images[0].ID).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), ref); !errors.Is(err, ErrNotFound) {
		t.Errorf("Resolve of what the other process removed: %v", err)
	}
}

func TestKilledInTheMiddleOfALayer(t *testing.T) {
	t.Parallel()
	small, big := layer(t, file("small", "1")), bigLayer(t, "big")
	var hang atomic.Bool
	hang.Store(true)
	half := make(chan struct{}, 1)
	reg := newRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !hang.Load() || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, must(big.Digest()).String()) {
			return false
		}
		data := must(readCompressed(big))
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)-1])
		w.(http.Flusher).Flush()
		half <- struct{}{}
		<-r.Context().Done()
		return true
	})
	ref := reg.push(t, "app:v1", newImage(t, small, big))
	dir := t.TempDir()
	cmd := start(t, "pull", dir, ref)
	<-half
	// The other process has what was sent when its file of the big layer has grown to more than nothing, and the small layer is in place.
	eventually(t, "a layer in place and one half unpacked", func() bool {
		placed, _ := os.ReadDir(filepath.Join(dir, layersDir))
		begun, _ := filepath.Glob(filepath.Join(dir, tempDir, "layer-*", "fs", "big"))
		return len(placed) == 1 && len(begun) == 1
	})
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	hang.Store(false)

	s := openStore(t, dir)
	if left := must(os.ReadDir(s.path(tempDir))); len(left) != 0 {
		t.Errorf("after opening again tmp has %v", left)
	}
	if _, err := s.Resolve(t.Context(), ref); !errors.Is(err, ErrNotFound) {
		t.Errorf("Resolve of half an image: %v", err)
	}
	got, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if shown := tree(t, mount(t, got.Layers)); shown["small"] != "1" || len(shown["big"]) < 1<<20 {
		t.Errorf("container sees %d files, big has %d bytes", len(shown), len(shown["big"]))
	}
	if n := reg.blobGets()[must(small.Digest()).String()]; n != 1 {
		t.Errorf("the layer that was complete was fetched %d times, want once", n)
	}
}

// A store that is opened while another process works must leave that one's files alone.
func TestOpenLeavesLivingWorkAlone(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	busy := must(lockShared(s.path(gcLock)))
	work := s.path(tempDir, "layer-busy")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	openStore(t, s.dir)
	if _, err := os.Stat(work); err != nil {
		t.Errorf("while its owner lives: %v", err)
	}
	busy.unlock()
	openStore(t, s.dir)
	if _, err := os.Stat(work); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after its owner died: %v", err)
	}
}

func readCompressed(l v1.Layer) ([]byte, error) {
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	return io.ReadAll(rc)
}
