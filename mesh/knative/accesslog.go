package knative

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/weft-dev/weft/mesh/config"
	"github.com/weft-dev/weft/mesh/distribute"
)

// AddAccessLog makes the proxies write what current asks for, nil for nothing, while the manager runs. Changes gets an event after
// each change of that. Like AddToManager it must be called before the distributor accepts proxies.
func AddAccessLog(mgr manager.Manager, distributor Distributor, current func() *config.AccessLog, changes <-chan event.GenericEvent) error {
	if err := publishAccessLog(distributor, current()); err != nil {
		return err
	}
	if err := mgr.Add(followAccessLog(distributor, current, changes)); err != nil {
		return fmt.Errorf("adding the access log: %w", err)
	}
	return nil
}

func followAccessLog(distributor Distributor, current func() *config.AccessLog, changes <-chan event.GenericEvent) everywhere {
	return func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-changes:
				if err := publishAccessLog(distributor, current()); err != nil {
					return err
				}
			}
		}
	}
}

func publishAccessLog(distributor Distributor, want *config.AccessLog) error {
	var upserts []config.Resource
	deletes := []distribute.Key{{TypeURL: config.AccessLogType, Name: config.RequestLog}}
	if want != nil {
		upserts, deletes = []config.Resource{want}, nil
	}
	if err := distributor.Apply(upserts, deletes); err != nil {
		return fmt.Errorf("distributing the access log: %w", err)
	}
	return nil
}
