package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/weft-dev/weft/test/platform"
)

// host is the virtual host that all proxies know.
const host = "bench.test"

// peers are the proxies in the order in which they are loaded.
var peers = []string{"haproxy", "nginx", "reverseproxy", "weft"}

// process is a program that listens.
type process struct {
	cmd     *exec.Cmd
	address string
	output  bytes.Buffer
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	killed := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer killed.Stop()
	_ = p.cmd.Wait()
}

// tools says what is missing, and how to get it.
func tools(names ...string) error {
	var missing []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s not found: apt-get install haproxy nginx-light wrk util-linux", strings.Join(missing, ", "))
	}
	return nil
}

// The configurations ask for what weft-proxy does anyway: one thread, connections to the origin kept, no access log.
var configs = template.Must(template.New("").Parse(`
{{define "origin"}}daemon off; master_process off; worker_processes 1; pid {{.Dir}}/origin.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000;
  server {
    listen {{.Listen}} reuseport backlog=4096; root {{.Dir}};
    location = / { default_type text/plain; return 200 "0123456789012345678901234567890123"; }
    location = /64k { default_type application/octet-stream; }
  }
}{{end}}
{{define "nginx"}}daemon off; master_process off; worker_processes 1; pid {{.Dir}}/nginx.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; client_body_temp_path {{.Dir}}/body; proxy_temp_path {{.Dir}}/proxy;
  upstream origin { server {{.Origin}}; keepalive 512; keepalive_requests 100000000; }
  server {
    listen {{.Listen}} backlog=4096; server_name bench.test;
    location / {
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}{{end}}
{{define "haproxy"}}global
  nbthread 1
  maxconn 8192
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 3s
  timeout client 60s
  timeout server 60s
frontend in
  bind {{.Listen}}
  use_backend origin if { hdr(host) -i bench.test }
backend origin
  server origin {{.Origin}} pool-max-conn 512
{{end}}`))

// start runs a program on a core and waits until it answers.
func start(ctx context.Context, core, address string, command ...string) (*process, error) {
	p := &process{address: address}
	p.cmd = exec.CommandContext(ctx, "taskset", append([]string{"-c", core}, command...)...)
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := platform.Poll(ctx, func() error { return answers(ctx, address) }); err != nil {
		p.stop()
		return nil, fmt.Errorf("starting %s: %w\n%s", strings.Join(command, " "), err, p.output.String())
	}
	return p, nil
}

func answers(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", http.NoBody)
	if err != nil {
		return err
	}
	request.Host = host
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || len(body) != 34 {
		return fmt.Errorf("answered %d with %d bytes, %w", response.StatusCode, len(body), err)
	}
	return nil
}

// startOrigin starts the server behind the proxies, on core 1.
func startOrigin(ctx context.Context, dir string) (*process, error) {
	// nginx reads it as another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "64k"), bytes.Repeat([]byte("x"), 64<<10), 0o644); err != nil {
		return nil, err
	}
	address, path, err := configure(ctx, "origin", dir, "")
	if err != nil {
		return nil, err
	}
	return start(ctx, "1", address, "nginx", "-c", path)
}

// startPeer starts a proxy on core 0.
func startPeer(ctx context.Context, name, dir, origin string) (*process, error) {
	address, path, err := configure(ctx, name, dir, origin)
	if err != nil {
		return nil, err
	}
	switch name {
	case "haproxy":
		return start(ctx, "0", address, "haproxy", "-db", "-f", path)
	case "nginx":
		return start(ctx, "0", address, "nginx", "-c", path)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, "0", address, self, "-serve", name, "-listen", address, "-origin", origin)
}

// configure chooses an address and writes the configuration, of those that have one.
func configure(ctx context.Context, name, dir, origin string) (address, path string, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", "", err
	}
	if configs.Lookup(name) == nil {
		return address, "", nil
	}
	var text bytes.Buffer
	if err := configs.ExecuteTemplate(&text, name, map[string]string{"Dir": dir, "Listen": address, "Origin": origin}); err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, name+".conf")
	return address, path, os.WriteFile(path, text.Bytes(), 0o644)
}
