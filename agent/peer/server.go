package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
)

// Peer is this node's end of the agents' conversation: client and server. It
// is safe for concurrent use.
type Peer struct {
	overlay Overlay
	creds   *credentials
	client  *http.Client
	port    uint16
	cluster string
	quota   quota
	log     *slog.Logger
}

// Options of New. Overlay is required.
type Options struct {
	Overlay Overlay
	Cluster string // network_id of the cluster in which callers need their rights; for Serve
	Port    uint16 // 0: Port
	Log     *slog.Logger
}

// New returns a Peer. Nothing is opened yet.
func New(o Options) *Peer {
	p := &Peer{overlay: o.Overlay, cluster: o.Cluster, port: o.Port, log: o.Log, creds: &credentials{overlay: o.Overlay, now: time.Now}}
	if p.port == 0 {
		p.port = Port
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.client = p.newClient()
	return p
}

// Caller is an authenticated peer.
type Caller struct {
	ID   identity.ID
	Node api.Node
}

type callerKey struct{}

// CallerOf returns who sent the request; ok is false outside Serve's handlers.
func CallerOf(r *http.Request) (c Caller, ok bool) {
	c, ok = r.Context().Value(callerKey{}).(Caller)
	return c, ok
}

// Endpoint is one request that this node's agent answers.
type Endpoint struct {
	Pattern string       // as http.ServeMux has it
	Right   rights.Right // that the caller must have
	Hint    string       // for who does not have it: what to do; may be empty
	Handle  http.HandlerFunc
}

// Serve answers requests on addr until ctx ends (nil) or listening fails. An
// endpoint only sees requests of members with its right, with CallerOf set.
func (p *Peer) Serve(ctx context.Context, addr netip.Addr, endpoints []Endpoint) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(addr, p.port).String())
	if err != nil {
		return fmt.Errorf("listen for other agents: %w", err)
	}
	return p.serve(ctx, l, endpoints)
}

func (p *Peer) serve(ctx context.Context, l net.Listener, endpoints []Endpoint) error {
	mux := http.NewServeMux()
	for _, e := range endpoints {
		mux.HandleFunc(e.Pattern, p.require(e))
	}
	server := &http.Server{
		Handler:           p.authenticate(http.MaxBytesHandler(mux, maxBody)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      callTimeout + 5*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(tls.NewListener(newLimited(l), p.serverTLS()))
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(fmt.Errorf("serve other agents: %w", err), server.Close())
}

func (p *Peer) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return p.creds.get(h.Context())
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := verifyChain(cs.PeerCertificates)
			return err
		},
		// A resumed session would skip nothing of the checks, but there is nothing to win either.
		SessionTicketsDisabled: true,
	}
}

// authenticate admits members that speak from their own address.
func (p *Peer) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := p.caller(r)
		if err != nil {
			p.log.Debug("refused another agent's request", "addr", r.RemoteAddr, "err", err)
			var e *api.Error
			if !errors.As(err, &e) {
				e = &api.Error{Message: err.Error(), Status: http.StatusForbidden}
			}
			api.WriteError(w, e)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// require lets callers with the endpoint's right through.
func (p *Peer) require(e Endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c, ok := CallerOf(r); !ok || !c.Node.Rights().May(e.Right, p.cluster) {
			api.WriteError(w, &api.Error{
				Message: fmt.Sprintf("%s may not %s in network_id %q", c.Node.Name, e.Right, p.cluster),
				Hint:    e.Hint, Status: http.StatusForbidden,
			})
			return
		}
		e.Handle(w, r)
	}
}

func (p *Peer) caller(r *http.Request) (Caller, error) {
	if r.TLS == nil {
		return Caller{}, errors.New("the connection is not encrypted")
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return Caller{}, fmt.Errorf("read the caller's address: %w", err)
	}
	if !p.quota.allow(from.Addr().Unmap()) {
		return Caller{}, &api.Error{Message: "too many requests from " + from.Addr().String(), Hint: "try again in a moment", Status: http.StatusTooManyRequests}
	}
	id, err := verifyChain(r.TLS.PeerCertificates)
	if err != nil {
		return Caller{}, err
	}
	node, err := p.member(r.Context(), id)
	if err != nil {
		return Caller{}, err
	}
	if !slices.Contains(node.Addresses, from.Addr().Unmap()) {
		return Caller{}, fmt.Errorf("address %s does not belong to %s", from.Addr(), node.Name)
	}
	return Caller{ID: id, Node: node}, nil
}

// ErrNotMember: the mesh knows no such member (yet).
var ErrNotMember = errors.New("not a member of this mesh")

func (p *Peer) member(ctx context.Context, id identity.ID) (api.Node, error) {
	list, err := p.overlay.Nodes(ctx, 0, 0)
	if err != nil {
		return api.Node{}, fmt.Errorf("list the members: %w", err)
	}
	for _, n := range list.Nodes {
		if n.ID == id {
			return n, nil
		}
	}
	return api.Node{}, fmt.Errorf("find %s: %w", id.Short(), ErrNotMember)
}
