package peer

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
)

func TestGet(t *testing.T) {
	w := &world{}
	server, client := w.join(t, "server", "127.0.0.2"), w.join(t, "client", "127.0.0.1")
	const text = "0123456789"
	mux := http.NewServeMux()
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	})
	mux.HandleFunc("GET /whole", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	mux.HandleFunc("GET /elsewhere", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 2-9/10")
		w.WriteHeader(http.StatusPartialContent)
	})
	mux.HandleFunc("GET /refused", func(w http.ResponseWriter, _ *http.Request) {
		api.WriteError(w, &api.Error{Message: "busy", Hint: "later", Status: http.StatusServiceUnavailable})
	})
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/file", http.StatusFound) })
	// An honest server compresses nothing here; one that does must not make more of it.
	mux.HandleFunc("GET /bomb", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			t.Error("compression was asked for")
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte("not gzip"))
	})
	p := New(Options{Overlay: client, Port: start(t, server, mux)})
	defer p.CloseIdle()
	for _, tc := range []struct {
		name, path string
		offset     int64
		want       string
		status     int    // of an *api.Error
		err        string // else a word of it
	}{
		{"whole", "/file", 0, text, 0, ""},
		{"from a byte on", "/file", 4, "456789", 0, ""},
		{"past the end", "/file", 11, "", http.StatusRequestedRangeNotSatisfiable, ""},
		{"a server that does not know offsets", "/whole", 4, "", 0, "does not begin at byte 4"},
		{"a server that begins elsewhere", "/elsewhere", 4, "", 0, "does not begin at byte 4"},
		{"refused", "/refused", 0, "", http.StatusServiceUnavailable, ""},
		{"sent elsewhere", "/moved", 0, "", http.StatusFound, ""},
		{"not there", "/none", 0, "", http.StatusNotFound, ""},
		{"compressed all the same", "/bomb", 0, "not gzip", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body, err := p.Get(t.Context(), idOf(server.key), tc.path, tc.offset)
			var e *api.Error
			switch {
			case tc.status != 0:
				if !errors.As(err, &e) || e.Status != tc.status {
					t.Errorf("got %v, want status %d", err, tc.status)
				}
			case tc.err != "":
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want %q", err, tc.err)
				}
			case err != nil:
				t.Error(err)
			default:
				got, err := io.ReadAll(body)
				if err := errors.Join(err, body.Close()); err != nil || string(got) != tc.want {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
	if _, err := p.Get(t.Context(), idOf(newKey(t)), "/file", 0); !errors.Is(err, ErrNotMember) {
		t.Errorf("somebody unknown: %v", err)
	}
}

// A handler that moves its deadlines gives more than the server's own would let it.
func TestALongAnswer(t *testing.T) {
	w := &world{}
	server, client := w.join(t, "server", "127.0.0.2"), w.join(t, "client", "127.0.0.1")
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := errors.Join(c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Now().Add(time.Minute))); err != nil {
			t.Errorf("the deadlines cannot be moved: %v", err)
		}
		_, _ = w.Write(bytes.Repeat([]byte("x"), 4*maxBody))
		if r.Context().Err() != nil {
			t.Error("the request ended meanwhile")
		}
	})
	p := New(Options{Overlay: client, Port: start(t, server, h)})
	defer p.CloseIdle()
	body, err := p.Get(t.Context(), idOf(server.key), "/", 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, body)
	if err := errors.Join(err, body.Close()); err != nil || n != 4*maxBody {
		t.Errorf("%d bytes, %v", n, err)
	}
}
