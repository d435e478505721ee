package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// userAgent is what registries see.
const userAgent = "weft"

// How long a layer may take to come when the network is bad: a connection that brings nothing for stallTimeout is given up, and
// blobAttempts connections in a row that bring nothing are the end. A connection that brought something starts the count again.
const (
	stallTimeout = 60 * time.Second
	blobAttempts = 4
	blobBackoff  = 200 * time.Millisecond
)

// errStalled is why a connection was given up.
var errStalled = errors.New("no data for " + stallTimeout.String())

// connection is a registry that has accepted one set of credentials for one repository.
type connection struct {
	repo   name.Repository
	client *http.Client
	// options make the library use the same authenticated transport, so that the handshake happens once per pull.
	options []remote.Option
}

// connect does the registry's handshake.
func (s *Store) connect(ctx context.Context, repo name.Repository, auth authn.Authenticator) (*connection, error) {
	t := transport.NewUserAgent(transport.NewRetry(s.opts.Transport), userAgent)
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, t, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	return &connection{
		repo: repo, client: &http.Client{Transport: t},
		options: []remote.Option{remote.WithContext(ctx), remote.WithTransport(t)},
	}, nil
}

// blob starts reading a blob. The reader goes on behind a broken connection from where it was, and its end is an error unless the
// content has the digest.
func (c *connection) blob(ctx context.Context, digest v1.Hash, size int64) (io.ReadCloser, error) {
	b := &blobReader{ctx: ctx, conn: c, digest: digest, size: size, sum: sha256.New()}
	if err := b.open(); err != nil {
		return nil, err
	}
	return b, nil
}

// blobReader reads one blob over as many connections as it takes.
type blobReader struct {
	ctx    context.Context //nolint:containedctx // an io.Reader has no other way
	conn   *connection
	digest v1.Hash
	size   int64

	sum      hash.Hash
	at       int64
	failures int
	body     io.ReadCloser
	// err is how reading ended; it stays.
	err    error
	stall  *time.Timer
	cancel context.CancelCauseFunc
	reqCtx context.Context //nolint:containedctx // its cause tells a stall from the caller's end
}

// open asks for the blob from b.at on.
func (b *blobReader) open() error {
	b.close()
	b.reqCtx, b.cancel = context.WithCancelCause(b.ctx)
	b.stall = time.AfterFunc(stallTimeout, func() { b.cancel(errStalled) })
	u := b.conn.repo.Scheme() + "://" + b.conn.repo.RegistryStr() + "/v2/" + b.conn.repo.RepositoryStr() + "/blobs/" + b.digest.String()
	req, err := http.NewRequestWithContext(b.reqCtx, http.MethodGet, u, nil)
	if err != nil {
		return fmt.Errorf("reading blob %s: %w", b.digest, err)
	}
	if b.at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.at, b.size-1))
	}
	resp, err := b.conn.client.Do(req) //nolint:bodyclose // close does, at the latest in Close
	if err != nil {
		return fmt.Errorf("reading blob %s: %w", b.digest, b.cause(err))
	}
	b.body = resp.Body
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return fmt.Errorf("reading blob %s: %w", b.digest, err)
	}
	if b.at > 0 && resp.StatusCode == http.StatusOK { // the registry knows no ranges
		if _, err := io.CopyN(io.Discard, b.body, b.at); err != nil {
			return fmt.Errorf("reading blob %s: %w", b.digest, b.cause(err))
		}
	}
	return nil
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.read(p)
	b.err = err
	return n, err
}

func (b *blobReader) read(p []byte) (int, error) {
	for {
		n, err := b.body.Read(p)
		if n > 0 {
			b.failures = 0
			b.stall.Reset(stallTimeout)
			b.at += int64(n)
			if b.at > b.size {
				return 0, fmt.Errorf("%w: blob %s is longer than the %d bytes of its descriptor", ErrCorrupt, b.digest, b.size)
			}
			_, _ = b.sum.Write(p[:n]) // a hash never fails
			return n, nil
		}
		if err == nil {
			continue
		}
		if b.at == b.size {
			if got := hex.EncodeToString(b.sum.Sum(nil)); got != b.digest.Hex {
				return 0, fmt.Errorf("%w: blob %s has sha256:%s", ErrCorrupt, b.digest, got)
			}
			return 0, io.EOF
		}
		if err := b.again(err); err != nil {
			return 0, err
		}
	}
}

// again opens the next connection after one broke with err, or returns why there is none.
func (b *blobReader) again(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	err = fmt.Errorf("reading blob %s at byte %d of %d: %w", b.digest, b.at, b.size, b.cause(err))
	for {
		b.failures++
		if b.ctx.Err() != nil || b.failures >= blobAttempts {
			return err
		}
		wait := time.NewTimer(blobBackoff << b.failures)
		select {
		case <-b.ctx.Done():
			wait.Stop()
			return b.ctx.Err()
		case <-wait.C:
		}
		next := b.open()
		if next == nil {
			return nil
		}
		if _, refused := errors.AsType[*transport.Error](next); refused {
			return next // an answer, not a bad network
		}
		err = next
	}
}

// cause replaces "context canceled" by the stall that canceled.
func (b *blobReader) cause(err error) error {
	if errors.Is(context.Cause(b.reqCtx), errStalled) {
		return errStalled
	}
	return err
}

func (b *blobReader) close() {
	if b.body != nil {
		_ = b.body.Close()
		b.body = nil
	}
	if b.cancel != nil {
		b.stall.Stop()
		b.cancel(nil)
	}
}

// Close implements io.Closer.
func (b *blobReader) Close() error {
	b.close()
	return nil
}
