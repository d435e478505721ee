package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
)

// maxBody is how much of an answer is read.
const maxBody = 10 << 10

// The purposes of requests to containers, which servers see in the User-Agent.
const (
	PurposeProbe     = "probe"
	PurposeLifecycle = "lifecycle"
)

// userAgentVersion is that of the kubelet whose behaviour these requests follow; servers match on the "kube-probe/" before it.
const userAgentVersion = "1.36"

// Request is the request of an httpGet action.
func Request(ctx context.Context, a *v1.HTTPGetAction, t Target, purpose string) (*http.Request, error) {
	port, err := Port(a.Port, t.Container)
	if err != nil {
		return nil, err
	}
	host := a.Host
	if host == "" {
		host = t.Host
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme = strings.ToLower(string(a.Scheme))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	u.Host = net.JoinHostPort(host, strconv.Itoa(port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	for _, h := range a.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "kube-"+purpose+"/"+userAgentVersion)
	}
	if accept, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	} else if len(accept) == 1 && accept[0] == "" {
		req.Header.Del("Accept")
	}
	req.Host = req.Header.Get("Host")
	return req, nil
}

// Do sends a request of Request on a connection of its own. Certificates are not checked, as the address is the pod's.
func Do(req *http.Request) (*http.Response, error) {
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: dialer().DialContext, DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // kubelet does not check either
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
	return client.Do(req) //nolint:wrapcheck // names method and URL, which is what users see
}

func checkHTTP(ctx context.Context, a *v1.HTTPGetAction, t Target) (Result, error) {
	req, err := Request(ctx, a, t, PurposeProbe)
	if err != nil {
		return Result{}, err
	}
	resp, err := Do(req)
	if err != nil {
		return Result{Outcome: Failure, Message: err.Error()}, nil
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case err != nil:
		return Result{Outcome: Failure, Message: err.Error()}, nil
	case resp.StatusCode >= http.StatusMultipleChoices && resp.StatusCode < http.StatusBadRequest:
		return Result{Outcome: Warning, Message: fmt.Sprintf("Probe terminated redirects, Response body: %v", string(body))}, nil
	case resp.StatusCode >= http.StatusOK && resp.StatusCode < http.StatusMultipleChoices:
		return Result{Outcome: Success, Message: string(body)}, nil
	default:
		return Result{Outcome: Failure, Message: fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode)}, nil
	}
}

// dialer makes connections that spend one second in TIME-WAIT instead of sixty, so that frequent probes do not use up the ports.
func dialer() *net.Dialer {
	return &net.Dialer{
		KeepAlive: -1,
		Timeout:   time.Minute,
		Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
			})
		},
	}
}
