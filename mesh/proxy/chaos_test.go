package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var chaosSeed = flag.Uint64("chaos.seed", 0, "seed of TestChaos; another one each time by default")

// TestChaos has many clients and an instance that behave in every way that a socket allows, for a bounded number of exchanges. What
// looks whole must be whole and the right one, and afterwards nothing may be left. It is not parallel because it counts what is there.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -chaos.seed=%d", seed)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	t.Run("exchanges", func(t *testing.T) { chaos(t, seed) })
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "file descriptors are closed", func() bool { return openFiles(t) <= files })
}

func openFiles(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(entries)
}

func chaos(t *testing.T, seed uint64) {
	t.Helper()
	h := start(t)
	b := revision("chaos")
	b.Concurrency = 6
	b.Activation.QueueCapacity = 1000
	var instances []string
	for range 2 {
		instances = append(instances, chaosInstance(t))
	}
	h.backend(b, instances...)
	h.route("chaos.test", b.GetName())
	var whole, cut atomic.Int64
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			c := &chaosClient{t: t, address: h.public, random: rand.New(rand.NewPCG(seed, uint64(i))), whole: &whole, cut: &cut}
			for n := range 25 {
				c.connection(fmt.Sprintf("%d-%d", i, n))
			}
		})
	}
	clients.Wait()
	t.Logf("%d whole responses, %d cut", whole.Load(), cut.Load())
	if whole.Load() < 100 || cut.Load() < 25 {
		t.Errorf("%d whole responses and %d cut: chaos is not what it was", whole.Load(), cut.Load())
	}
	eventually(t, "requests end", func() bool { return h.InFlight(b.GetName()) == 0 && h.Waiting(b.GetName()) == 0 })
	h.endpoints(b.GetName()) // the instances leave, and their connections with them
}

// chaosBody is the body that belongs to an id.
func chaosBody(id string, size int) []byte {
	return bytes.Repeat([]byte(id+"|"), size/(len(id)+1)+1)[:size]
}

// chaosInstance answers as the path of a request tells it to: /HOW/SIZE, with the body that belongs to the request's X-Id.
func chaosInstance(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				for in := bufio.NewReader(conn); chaosAnswer(conn, in); {
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

// chaosAnswer answers one request and reports whether the connection can carry another.
func chaosAnswer(conn net.Conn, in *bufio.Reader) bool {
	r, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	parts := strings.Split(r.URL.Path, "/")
	how, id := parts[1], r.Header.Get("X-Id")
	size, _ := strconv.Atoi(parts[2])
	body := chaosBody(id, size)
	sum := crc32.NewIEEE()
	if how != "early" {
		if _, err := io.Copy(sum, r.Body); err != nil {
			return false
		}
	}
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Id: %s\r\nX-Sum: %d\r\n", id, sum.Sum32())
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n", size)
	whole := head + length + string(body)
	send := func(s string) bool {
		_, err := io.WriteString(conn, s)
		return err == nil
	}
	switch how {
	case "whole":
		return send(whole)
	case "hints":
		return send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + whole)
	case "chunked":
		half := size / 2
		return send(head+"Transfer-Encoding: chunked\r\n\r\n") && (half == 0 || send(fmt.Sprintf("%x\r\n%s\r\n", half, body[:half]))) &&
			(size == half || send(fmt.Sprintf("%x;x=y\r\n%s\r\n", size-half, body[half:]))) && send("0\r\nX-Trailer: "+id+"\r\n\r\n")
	case "pieces":
		for rest := whole; rest != ""; {
			n := min(len(rest), 1+len(rest)/3)
			if !send(rest[:n]) {
				return false
			}
			rest = rest[n:]
			runtime.Gosched()
		}
		return true
	case "close", "early":
		// It says so: no proxy can know, and one that sends a POST just then must not send it again.
		send(head + "Connection: close\r\n\r\n" + string(body))
	case "more":
		return send(whole + "HTTP/1.1 200 OK\r\nX-Id: nobody\r\nContent-Length: 0\r\n\r\n")
	case "cut":
		send(whole[:len(whole)-1-size/2])
	case "reset":
		send(whole[:len(whole)-1-size/2])
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	case "upgrade":
		if send("HTTP/1.1 101 Switching Protocols\r\nX-Id: " + id + "\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n") {
			_, _ = io.Copy(conn, in)
		}
	}
	return false // "nothing" among them
}

// chaosClient is a client without manners.
type chaosClient struct {
	t          *testing.T
	address    string
	random     *rand.Rand
	whole, cut *atomic.Int64
}

// planned is a request, and what the client may see of its response.
type planned struct {
	id, how string
	size    int
	raw     string
	sum     uint32
}

var chaosWays = []string{"whole", "whole", "hints", "chunked", "chunked", "pieces", "close", "early", "more", "cut", "reset", "nothing"}

func (c *chaosClient) plan(id string) planned {
	p := planned{id: id, how: chaosWays[c.random.IntN(len(chaosWays))], size: c.size()}
	head := fmt.Sprintf("/%s/%d HTTP/1.1\r\nHost: chaos.test\r\nX-Id: %s\r\n", p.how, p.size, id)
	if c.random.IntN(2) == 0 {
		p.raw = "GET " + head + "\r\n"
		return p
	}
	body := chaosBody(id, c.size())
	p.sum = crc32.ChecksumIEEE(body)
	method := [...]string{"PUT ", "POST "}[c.random.IntN(2)]
	if c.random.IntN(2) == 0 {
		p.raw = method + head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
		return p
	}
	p.raw = method + head + "Transfer-Encoding: chunked\r\n\r\n"
	if len(body) > 0 {
		p.raw += fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
	}
	p.raw += "0\r\n\r\n"
	return p
}

// size is small most of the time.
func (c *chaosClient) size() int {
	return c.random.IntN([...]int{1, 20, 2000, 20_000, 200_000}[c.random.IntN(5)])
}

// connection sends some requests on one connection, with or without waiting for the responses, perhaps not all of them.
func (c *chaosClient) connection(name string) {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if c.random.IntN(8) == 0 {
		c.upgrade(conn, name)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok && c.random.IntN(4) == 0 {
		_ = tcp.SetLinger(0) // the end of the connection is a reset
	}
	var plans []planned
	var raw strings.Builder
	for i := range 1 + c.random.IntN(4) {
		p := c.plan(fmt.Sprintf("%s-%d", name, i))
		plans = append(plans, p)
		raw.WriteString(p.raw)
	}
	sent := raw.String()
	if c.random.IntN(5) == 0 {
		sent = sent[:c.random.IntN(len(sent))]
		_ = conn.SetDeadline(time.Now().Add(20 * time.Millisecond)) // the rest never comes
	}
	leaves := c.random.IntN(5) == 0 // in the middle of the responses
	pieces := 1 + c.random.IntN(5)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for rest := sent; rest != ""; {
			n := min(len(sent)/pieces+1, len(rest))
			if _, err := io.WriteString(conn, rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
			runtime.Gosched()
		}
	}()
	from := io.Reader(conn)
	if leaves {
		from = io.LimitReader(conn, int64(c.random.IntN(5000)))
	}
	c.read(bufio.NewReaderSize(from, 16+c.random.IntN(5000)), plans)
	_ = conn.Close()
	<-written
}

// read checks the responses as far as they come.
func (c *chaosClient) read(in *bufio.Reader, plans []planned) {
	for _, p := range plans {
		res, err := http.ReadResponse(in, nil)
		for err == nil && res.StatusCode == http.StatusEarlyHints {
			res, err = http.ReadResponse(in, nil)
		}
		if err != nil {
			c.cut.Add(1)
			return
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			c.cut.Add(1)
			return
		}
		c.check(p, res, body)
		if res.Close {
			return
		}
	}
}

// check looks at a response that is whole.
func (c *chaosClient) check(p planned, res *http.Response, body []byte) {
	c.whole.Add(1)
	if res.StatusCode == http.StatusBadGateway {
		if p.how == "nothing" || p.how == "reset" || p.how == "cut" || p.how == "early" || p.how == "close" {
			return
		}
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("X-Id") != p.id {
		c.t.Errorf("%s of %s: got %d for %q: %.200q", p.how, p.id, res.StatusCode, res.Header.Get("X-Id"), body)
		return
	}
	switch {
	case p.how == "nothing", p.how == "cut", p.how == "reset":
		c.t.Errorf("%s of %s: it looks whole", p.how, p.id)
	case !bytes.Equal(body, chaosBody(p.id, p.size)):
		c.t.Errorf("%s of %s: another body: %d bytes, want %d", p.how, p.id, len(body), p.size)
	case p.how != "early" && res.Header.Get("X-Sum") != strconv.Itoa(int(p.sum)):
		c.t.Errorf("%s of %s: the instance got another body", p.how, p.id)
	case p.how == "chunked" && res.Trailer.Get("X-Trailer") != p.id:
		c.t.Errorf("%s of %s: trailers %v", p.how, p.id, res.Trailer)
	}
}

// upgrade switches protocols, sends something for an echo, and leaves in one way or another.
func (c *chaosClient) upgrade(conn net.Conn, name string) {
	early := string(chaosBody(name, c.size()))
	switched := make(chan struct{})
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.WriteString(conn, "GET /upgrade/0 HTTP/1.1\r\nHost: chaos.test\r\nX-Id: "+name+"\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"+early)
		<-switched
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite() // before the switch it would mean that the client has left
		}
	}()
	defer func() {
		_ = conn.Close()
		<-written
	}()
	end := sync.OnceFunc(func() { close(switched) })
	defer end()
	if c.random.IntN(3) == 0 {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // there may be less
		_, _ = io.CopyN(io.Discard, conn, int64(c.random.IntN(1000)))
		return
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		c.t.Errorf("upgrade of %s: %v", name, err)
		return
	}
	_ = res.Body.Close()
	end()
	got, err := io.ReadAll(in)
	if res.StatusCode != http.StatusSwitchingProtocols || err != nil && !errors.Is(err, io.EOF) || string(got) != early {
		c.t.Errorf("upgrade of %s: got %d, %v, %d bytes, want %d", name, res.StatusCode, err, len(got), len(early))
		return
	}
	c.whole.Add(1)
}
