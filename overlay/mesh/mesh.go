package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/dial"
	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/socket"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/overlay/underlay"
)

// Errors of a Mesh; they may come wrapped.
var (
	ErrNotConnected = errors.New("peer is not connected")
	ErrClosed       = errors.New("mesh is closed")
	ErrPortTaken    = underlay.ErrPortTaken
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
	// safe for concurrent use. A node that it begins to allow is dialled after
	// the pause that is under way for it.
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
	cfg    Config
	self   identity.ID
	log    *slog.Logger
	timing Timing
	start  time.Time
	gate   *admission.Gate
	under  *underlay.Underlay

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ended  error         // of closing the underlay; set before wg is done
	look   chan struct{} // the scheduler may have something to do

	changes chan struct{} // of the network, for discovery

	mu       sync.Mutex
	closed   bool
	peers    map[identity.ID]*peer
	sched    *dial.Scheduler
	dials    map[uint64]context.CancelFunc
	hosts    map[string]discovery.Peer // configured, by name
	clones   []Clone                   // seen lately
	subs     map[*subscription]struct{}
	handlers map[string]func(identity.ID, Stream)
	stats    counters

	datagrams atomic.Pointer[socket.Receiver]
}

// New opens the underlay and starts to look for peers. The mesh lives until
// Close or until ctx ends.
func New(ctx context.Context, cfg Config) (*Mesh, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("start mesh: no identity key")
	}
	hosts, err := parsePeers(cfg.Peers)
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
	keys := cfg.Keys
	cfg.Keys = token.Keys{} // the gate has what is secret in them
	cfg.Exclude = slices.Clone(cfg.Exclude)
	m := &Mesh{
		cfg: cfg, self: cfg.Key.ID(), log: cfg.Log, timing: cfg.Timing.withDefaults(), start: time.Now(),
		look: make(chan struct{}, 1), changes: make(chan struct{}, 1),
		peers:    make(map[identity.ID]*peer),
		dials:    make(map[uint64]context.CancelFunc),
		hosts:    hosts,
		subs:     make(map[*subscription]struct{}),
		handlers: make(map[string]func(identity.ID, Stream)),
	}
	m.sched = dial.New(dial.Config{
		Self: m.self, QUIC: !cfg.NoQUIC, TCP: !cfg.NoTCP, Rand: mathrand.Float64,
		Timing: dial.Timing{
			Dial: m.timing.Dial, TCPDelay: m.timing.TCPDelay, Deference: m.timing.Deference, Upgrade: m.timing.Upgrade,
		},
	})
	if err := m.openGate(keys); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	m.under, err = underlay.Open(underlay.Config{
		Key: cfg.Key, Listen: cfg.Listen, Allow: m.callable, Datagrams: m.receive,
		NoQUIC: cfg.NoQUIC, NoTCP: cfg.NoTCP, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, m.cancel)
	m.startAll(keys)
	return m, nil
}

// openGate makes the door.
func (m *Mesh) openGate(keys token.Keys) error {
	var run admission.Run
	if _, err := io.ReadFull(rand.Reader, run[:]); err != nil {
		return fmt.Errorf("draw run name: %w", err)
	}
	m.gate = admission.NewGate(admission.Config{
		Doors: keys.Doors, Self: m.self, Run: run, Rand: rand.Reader, Known: m.knows,
		Limits: m.cfg.Limits, Deadline: m.timing.Admission,
	})
	return nil
}

func parsePeers(texts []string) (map[string]discovery.Peer, error) {
	out := make(map[string]discovery.Peer, len(texts))
	for _, text := range texts {
		p, err := discovery.ParsePeer(text)
		if err != nil {
			return nil, err
		}
		name := p.String()
		if !p.ID.IsZero() {
			name += " " + p.ID.Short()
		}
		out[name] = p
	}
	return out, nil
}

// startAll starts the goroutines that live as long as the mesh.
func (m *Mesh) startAll(keys token.Keys) {
	m.configureHosts()
	m.wg.Go(m.accept)
	m.wg.Go(m.runDials)
	m.wg.Go(m.watchNetwork)
	if m.cfg.MDNS {
		m.startMDNS(keys)
	}
	// Whoever ends ctx instead of calling Close gets the connections closed too.
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
	for _, c := range conns {
		c.close(errShutdown)
	}
	for s := range subs {
		s.close()
	}
	m.ended = m.under.Close()
}

// Close disconnects from everybody and waits until nothing of the mesh runs
// any more, handlers included: they see their streams fail and must return.
func (m *Mesh) Close() error {
	m.cancel()
	m.wg.Wait()
	return m.ended
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
	if c == nil || !c.adm.Standing.May(protocol) {
		return nil, fmt.Errorf("open %s to %s: %w", protocol, peer.Short(), ErrNotConnected)
	}
	s, err := c.open(ctx, protocol)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", protocol, peer.Short(), err)
	}
	return s, nil
}

// Learn tells where a member's record says that it is. The mesh connects to
// every member that it learned of, until Forget.
func (m *Mesh) Learn(id identity.ID, addrs []netip.AddrPort) {
	addrs = m.dialable(addrs)
	m.schedule(func(now time.Duration) { m.sched.Learn(now, id, addrs) })
}

// Forget stops dialling a member that left or expired. A connection that is
// there stays.
func (m *Mesh) Forget(id identity.ID) {
	m.schedule(func(now time.Duration) { m.sched.Forget(now, id) })
}

// Connected reports whether there is an admitted connection to the peer.
func (m *Mesh) Connected(peer identity.ID) bool { return m.best(peer) != nil }

// now is the monotonic time of the mesh.
func (m *Mesh) now() time.Duration { return time.Since(m.start) }
