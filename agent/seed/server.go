package seed

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// Content is an open blob.
type Content interface {
	io.ReaderAt
	io.Closer
}

// Shelf holds what is given to others.
type Shelf interface {
	// Index returns the document of Index.Encode that has this tag: the present one,
	// or one of a moment ago that others may have heard of. nil: there is none.
	Index(tag string) []byte
	// Open returns a blob of an image in the index, and its size in bytes;
	// ErrNobody for everything else, whatever else this machine may hold.
	Open(ctx context.Context, digest string) (Content, int64, error)
}

// Server answers other agents. It is safe for concurrent use.
type Server struct {
	shelf Shelf
	rate  *rate.Limiter

	mu   sync.Mutex
	open map[identity.ID]int // blobs on their way, never with a 0
	all  int
}

// NewServer returns a server of what is on the shelf.
func NewServer(shelf Shelf) *Server {
	return &Server{shelf: shelf, rate: rate.NewLimiter(serveRate, 4*chunk), open: map[identity.ID]int{}}
}

// ServeIndex answers GET of IndexPath and a tag.
func (s *Server) ServeIndex(w http.ResponseWriter, r *http.Request) {
	raw := s.shelf.Index(strings.TrimPrefix(r.URL.Path, IndexPath))
	if raw == nil {
		api.WriteError(w, &api.Error{Message: "the images of this machine are others", Status: http.StatusNotFound})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw) // the connection may be gone
}

// ServeBlob answers GET and HEAD of BlobPath and a digest, for one caller, whole
// or from a byte on.
func (s *Server) ServeBlob(w http.ResponseWriter, r *http.Request, caller identity.ID) {
	digest := strings.TrimPrefix(r.URL.Path, BlobPath)
	if !isDigest(digest) {
		api.WriteError(w, &api.Error{Message: "that is no digest", Hint: "write it like sha256:...", Status: http.StatusBadRequest})
		return
	}
	if !s.take(caller) {
		w.Header().Set("Retry-After", "2")
		api.WriteError(w, &api.Error{Message: "busy giving images to others", Status: http.StatusServiceUnavailable})
		return
	}
	defer s.give(caller)
	ctx, cancel := context.WithTimeout(r.Context(), serveTime)
	defer cancel()
	body, size, err := s.shelf.Open(ctx, digest)
	if err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, ErrNobody) {
			status, err = http.StatusNotFound, errors.New("there is no such blob in the images of this machine")
		}
		api.WriteError(w, &api.Error{Message: err.Error(), Status: status})
		return
	}
	defer func() { _ = body.Close() }() // it was read only
	control := http.NewResponseController(w)
	// The server's own deadlines are for short answers. Where they cannot be moved, they end this one.
	_ = control.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest+`"`)
	paced := &pacedWriter{ResponseWriter: w, ctx: ctx, rate: s.rate, control: control}
	http.ServeContent(paced, r, "", time.Time{}, io.NewSectionReader(body, 0, size))
}

// take reserves a place for one blob.
func (s *Server) take(caller identity.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxServed || s.open[caller] >= maxServedEach {
		return false
	}
	s.all++
	s.open[caller]++
	return true
}

func (s *Server) give(caller identity.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.open[caller]--; s.open[caller] == 0 {
		delete(s.open, caller)
	}
}

// pacedWriter keeps to the rate, and gives up a reader that does not take a chunk in time.
type pacedWriter struct {
	http.ResponseWriter
	ctx     context.Context
	rate    *rate.Limiter
	control *http.ResponseController
}

// Write implements io.Writer.
func (w *pacedWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), chunk)]
		if err := w.rate.WaitN(w.ctx, len(part)); err != nil {
			return n, err
		}
		_ = w.control.SetWriteDeadline(time.Now().Add(chunkTime)) // as above
		k, err := w.ResponseWriter.Write(part)
		n += k
		if err != nil {
			return n, err
		}
		p = p[len(part):]
	}
	return n, nil
}
