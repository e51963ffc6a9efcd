package seed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/kairos-io/kairos/overlay/identity"
)

// shelf is what a test gives away.
type shelf struct {
	index []byte
	blobs map[string][]byte
	hold  chan struct{} // if set, reading waits for it
}

func (s *shelf) Index(tag string) []byte {
	if tag != "t" {
		return nil
	}
	return s.index
}

func (s *shelf) Open(_ context.Context, digest string) (Content, int64, error) {
	raw, ok := s.blobs[digest]
	if !ok {
		return nil, 0, ErrNobody
	}
	return held{bytes.NewReader(raw), s.hold}, int64(len(raw)), nil
}

type held struct {
	io.ReaderAt
	hold chan struct{}
}

func (h held) ReadAt(p []byte, off int64) (int, error) {
	if h.hold != nil {
		<-h.hold
	}
	return h.ReaderAt.ReadAt(p, off)
}

func (held) Close() error { return nil }

// serve starts the server as an agent does; the caller's ID is in a header.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+IndexPath, s.ServeIndex)
	mux.HandleFunc("GET "+BlobPath, func(w http.ResponseWriter, r *http.Request) {
		var caller identity.ID
		copy(caller[:], r.Header.Get("Caller"))
		s.ServeBlob(w, r, caller)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func ask(t *testing.T, method, url string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestServeBlob(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	const text = "0123456789"
	url := serve(t, NewServer(&shelf{index: []byte(`{"images":[]}`), blobs: map[string][]byte{digest("1"): []byte(text)}}))
	for _, tc := range []struct {
		name, method, path, bytes string
		status                    int
		body                      string
	}{
		{"whole", "GET", BlobPath + digest("1"), "", 200, text},
		{"from a byte on", "GET", BlobPath + digest("1"), "bytes=4-", 206, "456789"},
		{"past the end", "GET", BlobPath + digest("1"), "bytes=10-", 416, ""},
		{"its head", "HEAD", BlobPath + digest("1"), "", 200, ""},
		{"not on the shelf", "GET", BlobPath + digest("2"), "", 404, "no such blob"},
		{"the head of what is not on the shelf", "HEAD", BlobPath + digest("2"), "", 404, ""},
		{"no digest", "GET", BlobPath + "sha256:12", "", 400, "no digest"},
		{"a path", "GET", BlobPath + "..%2f..%2fetc%2fshadow", "", 400, "no digest"},
		{"written to", "PUT", BlobPath + digest("1"), "", 405, "Method Not Allowed"},
		{"the index", "GET", IndexPath + "t", "", 200, `{"images":[]}`},
		{"an index that there is not", "GET", IndexPath + "x", "", 404, "are others"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := ask(t, tc.method, url+tc.path, map[string]string{"Range": tc.bytes})
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.body) || (tc.status < 300 && body != tc.body) {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, body, tc.status, tc.body)
			}
			if tc.method == "HEAD" && tc.status == 200 && resp.ContentLength != int64(len(text)) {
				t.Errorf("the length is %d", resp.ContentLength)
			}
		})
	}
}

// One member gets two blobs at a time, all together eight; the others are told to come again.
func TestServingIsBounded(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	hold := make(chan struct{})
	s := NewServer(&shelf{blobs: map[string][]byte{digest("1"): []byte("x")}, hold: hold})
	url := serve(t, s)
	statuses := make(chan int, 20)
	want := map[string]int{"a": 3, "b": 3, "c": 3, "d": 3, "e": 1} // 2 each, none for e
	begun := 0
	for caller, n := range want {
		if caller == "e" {
			continue
		}
		for range n {
			begun++
			go func() {
				resp, _ := ask(t, "GET", url+BlobPath+digest("1"), map[string]string{"Caller": caller})
				statuses <- resp.StatusCode
			}()
		}
	}
	for range 4 { // one of each three
		if got := <-statuses; got != http.StatusServiceUnavailable {
			t.Errorf("one too many got %d", got)
		}
	}
	if resp, _ := ask(t, "GET", url+BlobPath+digest("1"), map[string]string{"Caller": "e"}); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a fifth member got %s", resp.Status)
	}
	close(hold)
	for range begun - 4 {
		if got := <-statuses; got != http.StatusOK {
			t.Errorf("one of those let in got %d", got)
		}
	}
	if resp, _ := ask(t, "GET", url+BlobPath+digest("1"), map[string]string{"Caller": "e"}); resp.StatusCode != 200 {
		t.Errorf("afterwards it got %s", resp.Status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all != 0 || len(s.open) != 0 {
		t.Errorf("%d places are never given back, of %v", s.all, s.open)
	}
}

// What is given keeps to the rate.
func TestServingKeepsTheRate(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	s := NewServer(&shelf{blobs: map[string][]byte{digest("1"): make([]byte, 6*chunk)}})
	s.rate = rate.NewLimiter(20*chunk, chunk)
	url := serve(t, s)
	began := time.Now()
	_, body := ask(t, "GET", url+BlobPath+digest("1"), nil)
	if d := time.Since(began); len(body) != 6*chunk || d < 200*time.Millisecond { // 5 chunks after the first, 50 ms each
		t.Errorf("%d bytes after %s", len(body), d)
	}
}

// A member that asks and does not read is dropped; its place is free again.
func TestAReaderThatStallsIsDropped(t *testing.T) {
	s := NewServer(&shelf{blobs: map[string][]byte{digest("1"): make([]byte, 64<<20)}})
	s.rate = rate.NewLimiter(rate.Inf, 4*chunk)
	gone := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+BlobPath, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		s.ServeBlob(hasty{w}, r, id(1))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET "+BlobPath+digest("1")+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Fatal("it is still served")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all != 0 {
		t.Error("its place is not free")
	}
}

// hasty has a deadline of a moment wherever one is set.
type hasty struct{ http.ResponseWriter }

func (h hasty) SetWriteDeadline(d time.Time) error {
	if until := time.Until(d); until < chunkTime-time.Second || until > chunkTime {
		return errors.New("not the deadline of a chunk")
	}
	return http.NewResponseController(h.ResponseWriter).SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
}
