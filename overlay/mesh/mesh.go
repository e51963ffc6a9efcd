package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/socket"
	"github.com/kairos-io/kairos/overlay/token"
)

// Errors of a Mesh; they may come wrapped.
var (
	ErrNotConnected = errors.New("peer is not connected")
	ErrClosed       = errors.New("mesh is closed")
	ErrPortTaken    = errors.New("the port is taken; another kairos may be running, or choose one with overlay.listen")
)

// Config of a Mesh. Key and Keys are required.
type Config struct {
	Key     identity.Key
	Keys    token.Keys
	Listen  []netip.AddrPort // UDP and TCP; port 0 takes any; default 0.0.0.0:4171 and [::]:4171
	Peers   []string         // as discovery.ParsePeer reads them
	MDNS    bool             // find peers on the local network
	Exclude []netip.Prefix   // never dialled, announced or accepted as underlay: overlay and pod ranges
	Log     *slog.Logger     // default: discard

	// Allow, when set, decides which nodes this one connects to, beside the
	// token. It is asked before a dial and after a handshake, must be fast and
	// safe for concurrent use.
	Allow func(identity.ID) bool
	// Limits of the admission gate, see there.
	Limits admission.Limits
	// Timing overrides the clockwork; the zero value stands for the defaults.
	Timing Timing
	// Loopback announces loopback addresses too: for several nodes on one machine.
	Loopback bool
	// NoQUIC and NoTCP switch a transport off in both directions.
	NoQUIC, NoTCP bool
}

// Mesh is one node's end of the network. It is safe for concurrent use.
type Mesh struct {
	cfg     Config
	self    identity.ID
	log     *slog.Logger
	timing  Timing
	start   time.Time
	run     admission.Run
	gate    *admission.Gate
	under   *underlay
	static  []discovery.Peer
	exclude []netip.Prefix

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	peers    map[identity.ID]*peerState
	targets  map[identity.ID]*target
	subs     map[*subscription]struct{}
	handlers map[string]func(identity.ID, Stream)
	stats    counters

	datagrams atomic.Pointer[socket.Receiver]

	kick broadcast // network changed: try everything again
}

// New opens the underlay and starts to look for peers. The mesh lives until
// Close or until ctx ends.
func New(ctx context.Context, cfg Config) (*Mesh, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("start mesh: no identity key")
	}
	if cfg.Keys.IsZero() {
		return nil, errors.New("start mesh: no keys of a network")
	}
	static, err := parsePeers(cfg.Peers)
	if err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Listen) == 0 {
		cfg.Listen = []netip.AddrPort{
			netip.AddrPortFrom(netip.IPv4Unspecified(), discovery.DefaultPort),
			netip.AddrPortFrom(netip.IPv6Unspecified(), discovery.DefaultPort),
		}
	}
	m := &Mesh{
		cfg: cfg, self: cfg.Key.ID(), log: cfg.Log, timing: cfg.Timing.withDefaults(), start: time.Now(),
		static: static, exclude: slices.Clone(cfg.Exclude),
		peers:    make(map[identity.ID]*peerState),
		targets:  make(map[identity.ID]*target),
		subs:     make(map[*subscription]struct{}),
		handlers: make(map[string]func(identity.ID, Stream)),
	}
	if _, err := io.ReadFull(rand.Reader, m.run[:]); err != nil {
		return nil, fmt.Errorf("start mesh: draw run name: %w", err)
	}
	m.gate = admission.NewGate(admission.Config{
		Doors: cfg.Keys.Doors, Self: m.self, Run: m.run, Rand: rand.Reader, Known: m.known, Limits: cfg.Limits, Deadline: m.timing.Admission,
	})
	if m.under, err = openUnderlay(m); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, m.cancel)
	m.startAll()
	return m, nil
}

func parsePeers(texts []string) ([]discovery.Peer, error) {
	var out []discovery.Peer
	for _, text := range texts {
		p, err := discovery.ParsePeer(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// startAll starts the goroutines that live as long as the mesh.
func (m *Mesh) startAll() {
	for _, l := range m.under.listeners {
		m.wg.Go(func() { m.acceptLoop(l) })
	}
	for _, p := range m.static {
		m.wg.Go(func() { m.runStatic(p) })
	}
	m.wg.Go(m.watchNetwork)
	if m.cfg.MDNS {
		m.wg.Go(m.runMDNS)
	}
	// Whoever ends ctx instead of calling Close gets the sockets closed too.
	m.wg.Go(func() {
		<-m.ctx.Done()
		m.shutdown()
	})
}

// shutdown closes what the goroutines block on.
func (m *Mesh) shutdown() {
	m.mu.Lock()
	m.closed = true
	var conns []*conn
	for _, p := range m.peers {
		conns = append(conns, p.conns...)
	}
	subs := m.subs
	m.subs = nil
	m.mu.Unlock()
	m.under.closeListeners()
	for _, c := range conns {
		c.close(errShutdown)
	}
	for s := range subs {
		s.close()
	}
}

// Close disconnects from everybody and waits until nothing of the mesh runs
// any more, handlers included: they see their streams fail and must return.
func (m *Mesh) Close() error {
	m.cancel()
	m.wg.Wait()
	return m.under.close()
}

// ID returns this node's ID.
func (m *Mesh) ID() identity.ID { return m.self }

// Handle sets the handler of a protocol; nil removes it. It runs in a
// goroutine of its own for each stream that an admitted peer opens, and owns
// the stream from then on.
func (m *Mesh) Handle(protocol string, handler func(identity.ID, Stream)) {
	checkProtocol(protocol)
	m.mu.Lock()
	defer m.mu.Unlock()
	if handler == nil {
		delete(m.handlers, protocol)
		return
	}
	m.handlers[protocol] = handler
}

// Open opens a stream to a connected peer. The peer's answer is not waited
// for: a protocol that it does not handle shows as a reset when reading.
func (m *Mesh) Open(ctx context.Context, peer identity.ID, protocol string) (Stream, error) {
	checkProtocol(protocol)
	c := m.best(peer)
	if c == nil {
		return nil, fmt.Errorf("open %s to %s: %w", protocol, peer.Short(), ErrNotConnected)
	}
	s, err := c.open(ctx, protocol)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", protocol, peer.Short(), err)
	}
	return s, nil
}

// PeerInfo is one connected peer.
type PeerInfo struct {
	ID        identity.ID
	Transport string         // "quic" or "tcp"
	Remote    string         // underlay address in use, host:port
	Endpoint  netip.AddrPort // the same
	RTT       time.Duration  // last measured round trip; at most a beat old on an idle connection
	Since     time.Time      // of the peer, over all its connections
	Heard     time.Duration  // since the last byte from it
}

// Peers returns the connected peers, sorted by ID.
func (m *Mesh) Peers() []PeerInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]PeerInfo, 0, len(m.peers))
	for _, p := range m.peers {
		out = append(out, p.info(m.now()))
	}
	slices.SortFunc(out, func(a, b PeerInfo) int { return a.ID.Compare(b.ID) })
	return out
}

// Connected reports whether there is an admitted connection to the peer.
func (m *Mesh) Connected(peer identity.ID) bool { return m.best(peer) != nil }

// now is the monotonic time of the mesh.
func (m *Mesh) now() time.Duration { return time.Since(m.start) }

// resolver looks up the names of configured peers.
func (m *Mesh) resolver() discovery.Resolver { return net.DefaultResolver }
