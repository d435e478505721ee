package embedded

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
)

// readyStep is the time between two looks at a starting API server. It tells nobody that it is ready, so it must be asked.
const readyStep = 20 * time.Millisecond

// waitReady returns when the API server reports all of its checks good.
func waitReady(ctx context.Context, config *rest.Config) error {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("making client for the API server: %w", err)
	}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(readyStep)
	defer ticker.Stop()
	for {
		if ready(ctx, client, config.Host) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the API server: %w", context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

func ready(ctx context.Context, client *http.Client, host string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode == http.StatusOK
}
