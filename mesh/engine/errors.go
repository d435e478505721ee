package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// ErrNotConnected wraps failures to connect: nothing was sent, so that any request may go to another instance.
var ErrNotConnected = errors.New("connecting to instance")

// ErrNoResponse wraps failures between sending the request and the first byte of the response.
var ErrNoResponse = errors.New("waiting for response of instance")

// ErrCut wraps failures after the response has begun. All that can be done is to end the client's connection or stream.
var ErrCut = errors.New("response cut")

// ErrClientGone is wrapped, with ErrCut, by failures to write to the client.
var ErrClientGone = errors.New("client gone")

// roundTripError says what a failure of RoundTrip means.
func roundTripError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	return fmt.Errorf("%w: %w", ErrNoResponse, err)
}

// cutError says what a failure during the response means.
func cutError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrCut, context.Cause(ctx))
	}
	return fmt.Errorf("%w: %w", ErrCut, err)
}
