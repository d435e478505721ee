package probe

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
)

func checkGRPC(ctx context.Context, a *v1.GRPCAction, t Target, timeout time.Duration) (Result, error) {
	addr := net.JoinHostPort(t.Host, strconv.Itoa(int(a.Port)))
	// Dialing first tells a server that does not listen from one that does not answer, as kubelet's messages do.
	raw, err := dialer().DialContext(ctx, "tcp", addr)
	if err != nil {
		if ctx.Err() != nil {
			return failure("timeout: failed to connect service %q within %v: %+v", addr, timeout, err), nil
		}
		return failure("error: failed to connect service at %q: %+v", addr, err), nil
	}
	first := make(chan net.Conn, 1)
	first <- raw
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithUserAgent("kube-"+PurposeProbe+"/"+userAgentVersion),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			select {
			case c := <-first:
				return c, nil
			default:
				return dialer().DialContext(ctx, "tcp", addr)
			}
		}))
	if err != nil {
		_ = raw.Close()
		return Result{}, fmt.Errorf("making the client: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing is sent any more
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented:
		return failure("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s",
			status.Convert(err).Message()), nil
	case codes.DeadlineExceeded:
		return failure("timeout: health rpc did not complete within %v", timeout), nil
	default:
		return failure("error: health rpc probe failed: %+v", err), nil
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return failure("service unhealthy (responded with %q)", resp.GetStatus().String()), nil
	}
	return Result{Outcome: Success, Message: "service healthy"}, nil
}

func failure(format string, args ...any) Result {
	return Result{Outcome: Failure, Message: fmt.Sprintf(format, args...)}
}
