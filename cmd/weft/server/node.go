package server

import (
	"context"
	"fmt"

	"github.com/weft-dev/weft/node/sandbox"
)

// startNode starts the pool of sandboxes.
func (p *platform) startNode(context.Context) error {
	pool, err := sandbox.NewPool(sandbox.Options{Instance: p.Settings.Instance, Log: p.Log.With("component", "sandbox")})
	if err != nil {
		return fmt.Errorf("setting up the network of pods: %w", err)
	}
	p.parts.start("sandboxes", pool.Run)
	return nil
}
