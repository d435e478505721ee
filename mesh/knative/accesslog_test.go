package knative

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// changed notes what is distributed.
type changed struct {
	Distributor
	calls chan []config.Resource
}

func (c changed) Apply(upserts []config.Resource, deletes []distribute.Key) error {
	if len(upserts) == 0 && cmp.Equal(deletes, []distribute.Key{{TypeURL: config.AccessLogType, Name: config.RequestLog}}) {
		upserts = nil
	}
	c.calls <- upserts
	return nil
}

// TestAccessLogFollowsTheConfiguration switches it on and off.
func TestAccessLogFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	d := changed{calls: make(chan []config.Resource)}
	wants := make(chan *config.AccessLog, 1)
	changes := make(chan event.GenericEvent)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- followAccessLog(d, func() *config.AccessLog { return <-wants }, changes)(ctx)
	}()
	on := &config.AccessLog{Name: config.RequestLog, Template: "a"}
	for _, want := range []*config.AccessLog{on, nil, on} {
		wants <- want
		changes <- event.GenericEvent{}
		got := <-d.calls
		if want == nil {
			if len(got) > 0 {
				t.Errorf("distributed %v, want a removal", got)
			}
			continue
		}
		if diff := cmp.Diff([]config.Resource{want}, got, protocmp.Transform()); diff != "" {
			t.Errorf("distributed (-want +got):\n%s", diff)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}
