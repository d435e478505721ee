package teardown_test

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-dev/weft/cmd/weft/teardown"
	"github.com/weft-dev/weft/node/container"
	"github.com/weft-dev/weft/node/container/containertest"
)

func TestStopContainers(t *testing.T) {
	t.Parallel()
	errKill := errors.New("no such luck")
	tests := []struct {
		name    string
		prepare func(*containertest.Fake)
		wantErr error
		// wantTook is how long it takes on the fake's clock.
		wantTook time.Duration
		wantLeft int
	}{
		{name: "polite", prepare: func(*containertest.Fake) {}},
		{
			name: "one has exited before", prepare: func(f *containertest.Fake) {
				f.Exit("a", 1)
			},
		},
		{
			name: "stubborn ones are killed together", wantTook: 10 * time.Second,
			prepare: func(f *containertest.Fake) { f.IgnoreSignals(int(syscall.SIGTERM)) },
		},
		{
			name: "a failure does not keep the others running", wantErr: errKill, wantLeft: 1,
			prepare: func(f *containertest.Fake) { f.FailNext(containertest.Kill, errKill) },
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := &containertest.Fake{}
				for _, id := range []string{"a", "b", "c"} {
					if _, err := fake.Start(t.Context(), container.Spec{ID: id}); err != nil {
						t.Fatal(err)
					}
				}
				test.prepare(fake)
				began := time.Now()
				if err := teardown.StopContainers(t.Context(), fake); !errors.Is(err, test.wantErr) {
					t.Errorf("error %v, want %v", err, test.wantErr)
				}
				if took := time.Since(began); took != test.wantTook {
					t.Errorf("took %v, want %v", took, test.wantTook)
				}
				left, err := fake.List(t.Context())
				if err != nil || len(left) != test.wantLeft {
					t.Errorf("left are %v, %v, want %d containers", left, err, test.wantLeft)
				}
			})
		})
	}
}
