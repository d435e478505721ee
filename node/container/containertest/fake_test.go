package containertest_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/container/containertest"
)

func TestFakeEnds(t *testing.T) {
	t.Parallel()
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // where a synctest bubble begins
	tests := []struct {
		name string
		end  func(t *testing.T, f *containertest.Fake)
		want container.Status
	}{
		{
			name: "exit code",
			end:  func(_ *testing.T, f *containertest.Fake) { f.Exit("a", 3) },
			want: container.Status{ExitCode: 3},
		},
		{
			name: "out of memory",
			end:  func(_ *testing.T, f *containertest.Fake) { f.OOMKill("a") },
			want: container.Status{ExitCode: 137, Signal: 9, OOMKilled: true},
		},
		{
			name: "SIGTERM",
			end: func(t *testing.T, f *containertest.Fake) {
				t.Helper()
				if err := f.Kill(t.Context(), "a", int(syscall.SIGTERM)); err != nil {
					t.Error(err)
				}
			},
			want: container.Status{ExitCode: 143, Signal: 15},
		},
		{
			name: "ignored SIGTERM, then SIGKILL",
			end: func(t *testing.T, f *containertest.Fake) {
				t.Helper()
				f.IgnoreSignals(int(syscall.SIGTERM), int(syscall.SIGKILL))
				for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
					if err := f.Kill(t.Context(), "a", int(signal)); err != nil {
						t.Error(err)
					}
				}
			},
			want: container.Status{ExitCode: 137, Signal: 9},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var f containertest.Fake
				if _, err := f.Start(t.Context(), container.Spec{ID: "a"}); err != nil {
					t.Fatal(err)
				}
				got := make(chan container.Status, 1)
				go func() {
					s, err := f.Wait(t.Context(), "a")
					if err != nil {
						t.Error(err)
					}
					got <- s
				}()
				synctest.Wait()
				tt.end(t, &f)
				tt.want.State, tt.want.PID, tt.want.StartedAt, tt.want.FinishedAt = container.StateStopped, 1, start, start
				if diff := cmp.Diff(tt.want, <-got); diff != "" {
					t.Errorf("status (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestFakeFailNext(t *testing.T) {
	t.Parallel()
	var f containertest.Fake
	boom := errors.New("boom")
	f.FailNext(containertest.Start, boom)
	if _, err := f.Start(t.Context(), container.Spec{ID: "a"}); !errors.Is(err, boom) {
		t.Errorf("first Start: got %v, want %v", err, boom)
	}
	if _, err := f.Start(t.Context(), container.Spec{ID: "a"}); err != nil {
		t.Errorf("second Start: %v", err)
	}
	if _, err := f.Status(t.Context(), "b"); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("Status of an unknown id: got %v, want %v", err, container.ErrNotFound)
	}
	if got := f.Calls(containertest.Start); len(got) != 2 {
		t.Errorf("recorded %d calls of Start, want 2", len(got))
	}
}

func TestFakeAwaitCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f containertest.Fake
		f.Add(container.Info{ID: "a"})
		awaited := make(chan []containertest.Call, 1)
		go func() { awaited <- f.AwaitCalls(t.Context(), containertest.Kill, 1) }()
		synctest.Wait()
		if err := f.Kill(t.Context(), "a", 1); err != nil {
			t.Fatal(err)
		}
		if got := <-awaited; len(got) != 1 || got[0].Signal != 1 {
			t.Errorf("got %v, want one Kill with signal 1", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := f.AwaitCalls(ctx, containertest.Exec, 1); len(got) != 0 {
			t.Errorf("got %v, want no Exec", got)
		}
	})
}

func TestFakeLifecycle(t *testing.T) {
	t.Parallel()
	containertest.Lifecycle(t, containertest.Harness{New: func(*testing.T) container.Runtime { return new(containertest.Fake) }})
}
