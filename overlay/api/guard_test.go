package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// attack is one raw HTTP request as a browser, or a program that a page can
// steer, might send it. PORT stands for the listener's port.
type attack struct {
	name string
	line string   // request line without the version
	head []string // header lines; Host is added unless one is given
	body string
	want int
}

// raw sends one request as text, so that no client library repairs it.
func raw(t *testing.T, addr string, a attack) *http.Response {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	head := a.head
	if !strings.Contains(strings.Join(head, "\n"), "Host:") {
		head = append([]string{"Host: localhost:PORT"}, head...)
	}
	if a.body != "" {
		head = append(head, fmt.Sprintf("Content-Length: %d", len(a.body)))
	}
	text := a.line + " HTTP/1.1\r\n" + strings.Join(head, "\r\n") + "\r\nConnection: close\r\n\r\n" + a.body
	text = strings.ReplaceAll(text, "PORT", port)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

const (
	status    = "GET /api/v1/status"
	forbidden = http.StatusForbidden
	notMethod = http.StatusMethodNotAllowed
	notFound  = http.StatusNotFound
	badReq    = http.StatusBadRequest
)

func attacks() []attack {
	host := func(name, h string) attack {
		return attack{name: "host " + name, line: status, head: []string{"Host: " + h}, want: forbidden}
	}
	header := func(h string) attack { return attack{name: h, line: status, head: []string{h}, want: forbidden} }
	method := func(m string) attack {
		return attack{name: "method " + m, line: m + " /api/v1/status", want: notMethod}
	}
	path := func(p string) attack { return attack{name: "path " + p, line: "GET " + p, want: notFound} }
	return []attack{
		// DNS rebinding: the page's own name now resolves to 127.0.0.1.
		host("foreign", "evil.example:PORT"),
		host("foreign without a port", "evil.example"),
		host("ours without the port", "localhost"),
		host("ours with another port", "localhost:1"),
		host("prefix", "localhost.evil.example:PORT"),
		host("suffix", "evil-localhost:PORT"),
		host("rebinding service", "127.0.0.1.nip.example:PORT"),
		host("trailing dot", "localhost.:PORT"),
		host("other loopback", "127.0.0.2:PORT"),
		host("any address", "0.0.0.0:PORT"),
		host("decimal address", "2130706433:PORT"),
		host("mapped address", "[::ffff:127.0.0.1]:PORT"),
		host("zoned address", "[::1%25lo]:PORT"),
		host("capital letters", "LOCALHOST:PORT"),
		host("empty", ""),
		{name: "absolute target", line: "GET http://evil.example/api/v1/status", want: forbidden},
		// What is no Host at all net/http refuses itself, before any handler.
		{name: "host userinfo", line: status, head: []string{"Host: localhost:PORT@evil.example"}, want: badReq},
		{name: "host two names", line: status, head: []string{"Host: localhost:PORT, evil.example"}, want: badReq},
		{name: "two host lines", line: status, head: []string{"Host: localhost:PORT", "Host: evil.example"}, want: badReq},
		// A page on another site, or on another port of this machine.
		header("Origin: http://evil.example"),
		header("Origin: null"),
		header("Origin: https://localhost:PORT"),
		header("Origin: http://localhost:1"),
		header("Origin: http://localhost"),
		header("Origin: http://localhost:PORT.evil.example"),
		header("Origin: http://localhost:PORT@evil.example"),
		header("Origin: file://"),
		header("Referer: http://evil.example/http://localhost:PORT/"),
		header("Referer: http://localhost:PORT@evil.example/"),
		header("Referer: http://localhost:1/"),
		header("Referer: about:blank"),
		header("Sec-Fetch-Site: cross-site"),
		header("Sec-Fetch-Site: same-site"),
		header("Sec-Fetch-Site: anything"),
		{name: "second origin", line: status, head: []string{"Origin: http://localhost:PORT", "Origin: http://evil.example"}, want: forbidden},
		{name: "websocket", line: status, head: []string{"Upgrade: websocket"}, want: forbidden},
		{name: "read with a body", line: status, head: []string{"Content-Type: text/plain"}, body: "{}", want: forbidden},
		// Simple requests need no preflight; nothing may change anything.
		{name: "simple post", line: "POST /control/v1/pin", head: []string{"Content-Type: text/plain"}, body: "{}", want: notMethod},
		{name: "form post", line: "POST /api/v1/status", head: []string{"Content-Type: application/x-www-form-urlencoded"}, body: "a=b", want: notMethod},
		{name: "put", line: "PUT /control/v1/annotations", head: []string{"Content-Type: application/json"}, body: "{}", want: notMethod},
		{name: "preflight", line: "OPTIONS /control/v1/sign", head: []string{"Origin: http://evil.example", "Access-Control-Request-Private-Network: true"}, want: notMethod},
		{name: "method override", line: "GET /control/v1/pin", head: []string{"X-HTTP-Method-Override: POST"}, want: forbidden},
		method("DELETE"), method("PATCH"), method("TRACE"), method("PROPFIND"), method("get"),
		{name: "control by get", line: "GET /control/v1/sign", want: forbidden},
		{name: "extra handler", line: "GET /control/v1/echo", want: forbidden},
		path("//api/v1/status"), path("/api/v1/status/"), path("/api/v1/../v1/status"), path("/api/v1/%73tatus"), path("/api%2fv1/status"),
		path("/API/V1/STATUS"), path("/api/v1/..%2f..%2fcontrol/v1/pin"), path("//evil.example/%2e%2e"), path("/api/v1/status%00"), path("/debug/pprof/"),
	}
}

// TestBrowserAttacks sends what a hostile page can cause. None may get an
// answer with content, and every answer carries the headers that defuse it.
func TestBrowserAttacks(t *testing.T) {
	f := newFake()
	addr := startTCP(t, f)
	if n := len(attacks()); n < 40 {
		t.Fatalf("only %d cases", n)
	}
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			resp := raw(t, addr, a)
			if resp.StatusCode != a.want {
				t.Errorf("got %d, want %d", resp.StatusCode, a.want)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(body), testID.String()) {
				t.Errorf("the answer tells the member's id: %s", body)
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("the answer has %s", name)
				}
			}
			// net/http itself answers what it cannot parse.
			if a.want != badReq {
				checkHardened(t, resp.Header)
			}
		})
	}
	if f.pinned || f.annotations != nil {
		t.Error("an attack changed something")
	}
}

func checkHardened(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"X-Content-Type-Options":  "nosniff",
		"Content-Security-Policy": "default-src 'none'",
		"Cache-Control":           "no-store",
		"X-Frame-Options":         "DENY",
	} {
		if got := h.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestFriendlyRequests(t *testing.T) {
	addr := startTCP(t, newFake())
	for _, a := range []attack{
		{name: "plain", line: status},
		{name: "head", line: "HEAD /api/v1/status"},
		{name: "ipv4 name", line: status, head: []string{"Host: 127.0.0.1:PORT"}},
		{name: "ipv6 name", line: status, head: []string{"Host: [::1]:PORT"}},
		{name: "typed into a browser", line: status, head: []string{"Sec-Fetch-Site: none"}},
		{name: "our own page", line: status, head: []string{"Sec-Fetch-Site: same-origin", "Referer: http://localhost:PORT/"}},
		{name: "our own origin", line: status, head: []string{"Origin: http://127.0.0.1:PORT"}},
	} {
		t.Run(a.name, func(t *testing.T) {
			resp := raw(t, addr, a)
			if resp.StatusCode != http.StatusOK {
				t.Errorf("got %d", resp.StatusCode)
			}
			checkHardened(t, resp.Header)
		})
	}
}

// FuzzGuard: whatever the headers say, an answer with content needs a loopback
// Host with the right port and no foreign Origin.
func FuzzGuard(f *testing.F) {
	f.Add("localhost:8080", "http://localhost:8080", "/api/v1/status")
	f.Add("[::1]:8080", "", "/")
	f.Add("evil.example:8080", "null", "//")
	s := NewServer(newFake().config())
	g := guard{port: "8080", next: http.HandlerFunc(s.serveRead)}
	allowed := map[string]bool{"localhost:8080": true, "127.0.0.1:8080": true, "[::1]:8080": true}
	f.Fuzz(func(t *testing.T, host, origin, path string) {
		r, err := http.NewRequest(http.MethodGet, "http://localhost:8080", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host, r.URL.Path = host, path
		if origin != "" {
			r.Header["Origin"] = []string{origin}
		}
		w := &statusOnly{header: http.Header{}}
		g.ServeHTTP(w, r)
		own := origin == "" || allowed[strings.TrimSuffix(strings.TrimPrefix(origin, "http://"), "/")] || strings.HasPrefix(origin, "http://localhost:8080/") ||
			strings.HasPrefix(origin, "http://127.0.0.1:8080/") || strings.HasPrefix(origin, "http://[::1]:8080/")
		if w.status == http.StatusOK && (!allowed[host] || !own) {
			t.Errorf("host %q origin %q path %q was answered", host, origin, path)
		}
	})
}

type statusOnly struct {
	header http.Header
	status int
}

func (w *statusOnly) Header() http.Header { return w.header }
func (w *statusOnly) WriteHeader(s int)   { w.status = s }
func (w *statusOnly) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return len(b), nil
}
