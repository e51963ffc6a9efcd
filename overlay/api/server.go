package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Limits of the server. They bound what a local process can make it hold.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	writeTimeout  = MaxWait + 15*time.Second
	maxHeader     = 16 << 10 // bytes
	maxBody       = 1 << 20  // bytes of a control request
	maxConns      = 256      // per listener
)

// MaxWait is the longest that GET /api/v1/nodes?wait= holds an answer back.
const MaxWait = time.Minute

// View is what the server shows. Its methods must be safe for concurrent use
// and, apart from Nodes, return at once.
type View interface {
	Status() Status
	// Nodes returns the members as soon as their revision is above after, or when ctx ends.
	Nodes(ctx context.Context, after uint64) NodeList
	Peers() []Peer
	Records() []Record
	// Cluster returns an error whose text says why there is none to show.
	Cluster() (Cluster, error)
}

// Control is what the unix socket changes. Errors that are an *Error keep
// their HTTP status and hint; others are answered with 500.
type Control interface {
	SetAnnotations(map[string]string) error
	SetRoutes(Routes) error
	Pin() error
	Sign(context string, message []byte) ([]byte, error)
	Certificate(publicKey []byte) ([][]byte, error)
}

// Config is what a Server serves.
type Config struct {
	View    View
	Control Control
	// SetCluster takes the document that View.Cluster answers from then on.
	SetCluster func(Cluster) error
	// Extra are further handlers on the unix socket: "kubeconfig" is served at /control/v1/kubeconfig.
	Extra map[string]http.Handler
	// Ready returns nil once the overlay carries packets, else the reason why not.
	Ready func() error
	// Metrics answers /metrics; nil: nothing does.
	Metrics http.Handler
	Log     *slog.Logger
}

// Server serves one overlay's API on any number of listeners. Its zero value
// is not usable; make it with NewServer. All methods are safe for concurrent use.
type Server struct {
	cfg     Config
	read    routes // GET and HEAD, on every listener
	control routes // unix socket only

	mu     sync.Mutex // protects the two below
	open   []*http.Server
	closed bool
}

// routes maps an exact path to a handler per method. There are no patterns, no
// redirects and no path cleaning, so that no spelling trick reaches a handler.
type routes map[string]methods

type methods map[string]http.HandlerFunc

// HintNoPath is the hint of the answer to a path that the server does not have.
const HintNoPath = "GET / lists what there is"

// anyMethod is the key of a handler that looks at the method itself.
const anyMethod = "*"

// NewServer returns a server that listens nowhere yet.
func NewServer(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg}
	s.read = s.readRoutes()
	s.control = s.controlRoutes()
	return s
}

// ServeTCP serves the read-only API on l until Close. Its requests must name
// the listener's own port on a loopback name: see guard.
func (s *Server) ServeTCP(l net.Listener) error {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return fmt.Errorf("serve the api on %s: %w", l.Addr(), err)
	}
	h := guard{port: port, next: http.HandlerFunc(s.serveRead)}
	return s.serve(limitListener(l, maxConns), h, nil)
}

// ServeUnix serves everything on l until Close, to root and to the process's
// own user. The users in guests (numeric ids) may read and call Config.Extra,
// but neither sign, certify nor change anything: a bridge's socket is for the
// person behind sudo, and so for each program of hers, which must get neither
// root's power over the routes of this machine nor the member's identity.
func (s *Server) ServeUnix(l net.Listener, guests ...int) error {
	h := peerGuard{guests: guests, next: http.HandlerFunc(s.serveAll), guest: http.HandlerFunc(s.serveGuest), log: s.cfg.Log}
	return s.serve(limitListener(l, maxConns), h, withPeer)
}

type connContext func(context.Context, net.Conn) context.Context

func (s *Server) serve(l net.Listener, h http.Handler, cc connContext) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		// No ReadTimeout: it would also cut the requests that wait for the next revision.
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ConnContext:    cc,
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	if !s.track(srv) {
		_ = l.Close()
		return nil
	}
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the api: %w", err)
	}
	return nil
}

func (s *Server) track(srv *http.Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open = append(s.open, srv)
	return true
}

// Close stops all listeners and cuts open connections. It is idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	open := s.open
	s.open, s.closed = nil, true
	s.mu.Unlock()
	var errs []error
	for _, srv := range open {
		errs = append(errs, srv.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) serveRead(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/control") {
		WriteError(w, &Error{
			Message: "this listener is read-only",
			Hint:    "control requests go to the unix socket",
			Status:  http.StatusForbidden,
		})
		return
	}
	s.read.serve(w, r)
}

func (s *Server) serveAll(w http.ResponseWriter, r *http.Request) {
	harden(w.Header())
	if strings.HasPrefix(r.URL.Path, controlPrefix) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		s.control.serve(w, r)
		return
	}
	s.read.serve(w, r)
}

// serveGuest is serveAll without what changes or speaks for this member.
func (s *Server) serveGuest(w http.ResponseWriter, r *http.Request) {
	name, control := strings.CutPrefix(r.URL.Path, controlPrefix)
	if _, extra := s.cfg.Extra[name]; control && !extra {
		harden(w.Header())
		WriteError(w, &Error{
			Message: "permission denied: this socket lets you read and get a kubeconfig",
			Hint:    "only root controls the network of this machine",
			Status:  http.StatusForbidden,
		})
		return
	}
	s.serveAll(w, r)
}

func (rt routes) serve(w http.ResponseWriter, r *http.Request) {
	byMethod, ok := rt[r.URL.Path]
	if !ok || r.URL.RawPath != "" {
		WriteError(w, &Error{Message: "no such path", Hint: HintNoPath, Status: http.StatusNotFound})
		return
	}
	h, ok := byMethod[r.Method]
	if !ok && r.Method == http.MethodHead {
		h, ok = byMethod[http.MethodGet]
	}
	if !ok {
		h, ok = byMethod[anyMethod]
	}
	if !ok {
		w.Header().Set("Allow", byMethod.allow())
		WriteError(w, &Error{Message: "method not allowed", Status: http.StatusMethodNotAllowed})
		return
	}
	h(w, r)
}

func (m methods) allow() string {
	var names []string
	for _, name := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost} {
		_, ok := m[name]
		_, get := m[http.MethodGet]
		if ok || (name == http.MethodHead && get) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// WriteJSON answers with v and a status.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		// Only a bug makes one of our own types unencodable.
		http.Error(w, `{"error":"encode the answer"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the caller went away: nobody to tell
}

// WriteError answers with err: an *Error with its status and hint, anything else with 500.
func WriteError(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Message: err.Error()}
	}
	status := e.Status
	if status == 0 {
		status = http.StatusInternalServerError
	}
	WriteJSON(w, status, Error{Message: e.Message, Hint: e.Hint})
}
