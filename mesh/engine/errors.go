package engine

import (
	"errors"
	"fmt"
)

// ErrNotConnected wraps failures to connect: nothing was sent, so that any request may go to another instance.
var ErrNotConnected = errors.New("connecting to instance")

// ErrNoResponse wraps failures between sending the request and the first byte of the response.
var ErrNoResponse = errors.New("waiting for response of instance")

// ErrCut wraps failures after the response has begun. All that can be done is to end the client's connection or stream.
var ErrCut = errors.New("response cut")

// ErrClientGone is the cause of exchanges whose client has left, and is wrapped, with ErrCut, by failures to write to the client.
var ErrClientGone = errors.New("client gone")

// errPanicked is the cause of exchanges whose handler has panicked.
var errPanicked = errors.New("serving the request panicked")

// noResponse says what a failure before the response means.
func (x *Exchange) noResponse(err error) error {
	if cause := x.Cause(); cause != nil {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrNoResponse, err)
}

// cut says what a failure of the instance during the response means.
func (x *Exchange) cut(err error) error {
	if cause := x.Cause(); cause != nil {
		err = cause
	}
	return fmt.Errorf("%w: %w", ErrCut, err)
}

// clientError says what a failure to write to the client means.
func (x *Exchange) clientError(err error) error {
	if cause := x.Cause(); cause != nil {
		return fmt.Errorf("%w: %w", ErrCut, cause)
	}
	return fmt.Errorf("%w: %w: %w", ErrCut, ErrClientGone, err)
}
