package overlay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/cpu"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/overlay/gossip"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/session"
	"github.com/kairos-io/kairos/overlay/socket"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/overlay/tun"
	"github.com/kairos-io/kairos/overlay/wire"
)

// Node is a running member of the mesh. Its methods are safe for concurrent use.
type Node struct {
	opts    Options
	key     identity.Key
	keys    token.Keys
	network identity.Network
	mtu     int
	started time.Time

	device   device
	mesh     *mesh.Mesh
	gossip   *gossip.Gossip
	datapath *datapath.Datapath
	names    *names
	server   *api.Server
	socket   net.Listener // nil without a socket
	abstract net.Listener // nil without an abstract socket
	lock     *os.File     // of the state directory; nil without one
	tcp      net.Listener // nil without an API address

	ctx      context.Context // ends when the node begins to stop
	cancel   context.CancelFunc
	running  *errgroup.Group
	wakeup   chan struct{}     // the loop has something to look at
	probes   chan chan<- error // see Alive
	closing  sync.Once
	closed   error
	finished chan struct{} // everything is closed

	mu         sync.Mutex // protects what follows
	world      world
	told       runtimeState
	state      state
	applied    applied
	connected  int
	aloneSince time.Time // when the last peer went; the start, if there was none
	conditions map[string]api.Condition
	revision   uint64
	changed    chan struct{} // closed at the next revision
}

// device is what the node needs of the interface.
type device interface {
	datapath.Device
	addresser
}

// addresser sets what the kernel knows about the interface.
type addresser interface {
	SetAddrs(addrs []prefix) error
	SetRoutes(routes []tun.Route) error
	Shadows(networks []prefix) ([]tun.Shadow, error)
	Changed() <-chan struct{}
}

// openDevice opens the real interface; tests put another in its place.
var openDevice = func(cfg tun.Config) (device, error) {
	i, err := tun.Open(cfg)
	if err != nil {
		return nil, err // not i, which would be a device that is nil inside
	}
	return i, nil
}

// Start makes this machine a member. When it returns without an error the
// interface is up, the underlay listens and the API serves; other members may
// still have to be found. ctx bounds the whole life: when it ends the node
// closes itself.
func Start(ctx context.Context, opts Options) (*Node, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	lock, err := lockState(opts.StateDir, opts.StateOwner)
	if err != nil {
		return nil, err
	}
	n, err := prepare(opts)
	if err != nil {
		return nil, errors.Join(err, closeLock(lock))
	}
	n.lock = lock
	// Above only reads, below touches the machine.
	if err := n.open(ctx); err != nil {
		n.release()
		return nil, err
	}
	n.run(ctx)
	return n, nil
}

// prepare computes everything that needs no machine but the state directory.
func prepare(opts Options) (*Node, error) {
	n := &Node{
		opts: opts, keys: opts.Token.Keys(), mtu: datapath.MTU(opts.MTU), started: time.Now(),
		wakeup: make(chan struct{}, 1), probes: make(chan chan<- error), finished: make(chan struct{}),
		conditions: map[string]api.Condition{}, revision: 1, changed: make(chan struct{}),
	}
	var err error
	if n.network, err = identity.NetworkOf(n.keys.Address, opts.CIDR); err != nil {
		return nil, fmt.Errorf("%w: overlay.cidr: %w", ErrOptions, err)
	}
	if err := opts.StateOwner.act(n.load); err != nil {
		return nil, err
	}
	if err := n.state.keepNetwork(n.keys.NetID, n.network.V4); err != nil {
		return nil, err
	}
	n.state.Incarnation++
	if err := n.loadTold(); err != nil {
		return nil, err
	}
	id := n.key.ID()
	n.world = world{
		claim:     claim{id: id, network: n.network, attempt: n.state.Attempt, pinned: n.state.Pinned},
		name:      n.state.keepName(MemberName(opts.Name, id), id),
		kind:      opts.Kind,
		networkID: opts.NetworkID,
		version:   opts.Version,
		routes:    opts.Routes, annotations: n.told.Annotations,
		kept: n.state.keptPrefixes(),
	}
	if n.told.Routes != nil {
		n.world.routes = *n.told.Routes
	}
	return n, nil
}

// load reads what the last process left.
func (n *Node) load() (err error) {
	if n.key, err = loadKey(n.opts.StateDir); err != nil {
		return err
	}
	n.state, err = loadState(n.opts.StateDir)
	return err
}

func closeLock(lock *os.File) error {
	if lock == nil {
		return nil
	}
	return lock.Close()
}

func loadKey(dir string) (identity.Key, error) {
	if dir == "" {
		return identity.Generate(rand.Reader)
	}
	key, _, err := identity.LoadOrCreate(filepath.Join(dir, keyFile), rand.Reader)
	return key, err
}

// loadTold reads what the agent said before a restart. Unlike the state it can
// be had again: what is unreadable is dropped, and said.
func (n *Node) loadTold() error {
	if n.opts.RuntimeDir == "" {
		return nil
	}
	path := filepath.Join(n.opts.RuntimeDir, controlFile)
	unknown, err := readJSON(path, &n.told)
	if v := n.told.Version; err == nil && v != 0 && v != stateVersion {
		err = fmt.Errorf("read %s: version %d: %w", path, v, errState)
	}
	n.told.unknown = unknown
	if err != nil {
		if !errors.Is(err, errState) {
			return err
		}
		n.opts.Log.Warn("ignoring what the agent said before the restart", "err", err)
		n.told = runtimeState{}
	}
	return nil
}

// open takes hold of everything that another process could have: the cheap and
// telling ones first. What it took is in n, for release.
func (n *Node) open(ctx context.Context) (err error) {
	if err := n.listen(); err != nil {
		return err
	}
	if err := n.writeState(n.state); err != nil {
		return err
	}
	n.device, err = openDevice(tun.Config{
		Name: n.opts.Interface, MTU: n.mtu, Persist: n.opts.Persist, Addrs: n.world.kernelAddrs(),
	})
	if err != nil {
		return err
	}
	// The end of ctx becomes a Close, which says goodbye before anything stops.
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if n.names, err = openNames(n.ctx, n.opts); err != nil {
		return err
	}
	n.mesh, err = mesh.New(n.ctx, mesh.Config{
		Key: n.key, Keys: n.keys, Listen: n.opts.Listen, Peers: n.opts.Peers, MDNS: n.opts.MDNS,
		Exclude: append(prefixes(n.network), n.opts.Exclude...), Log: n.opts.Log,
		Loopback: n.opts.loopback,
	})
	if err != nil {
		return err
	}
	// Nothing that takes time from here to the loops: members may call already.
	n.connect()
	return nil
}

func (n *Node) listen() (err error) {
	if n.opts.Socket != "" {
		n.socket, err = api.ListenUnix(n.opts.Socket, n.opts.SocketUID)
		if errors.Is(err, api.ErrInUse) {
			return fmt.Errorf("%w: %w", ErrRunning, err)
		}
		if err != nil {
			return err
		}
	}
	if n.opts.Socket != "" && n.opts.Abstract {
		// Whoever holds the name must not keep the network from starting.
		if n.abstract, err = api.ListenAbstract(n.opts.Socket); err != nil {
			n.opts.Log.Warn("other containers cannot reach this one", "err", err)
		}
	}
	if n.opts.API.IsValid() {
		if n.tcp, err = listenTCP(n.opts.API); err != nil {
			return err
		}
	}
	return nil
}

// connect joins mesh, gossip and datapath to each other.
func (n *Node) connect() {
	n.datapath = datapath.New(datapath.Config{
		Self: n.ID(), Device: n.device, Log: n.opts.Log,
		Opener: datapath.OpenerFunc(func(ctx context.Context, id identity.ID) (datapath.Stream, error) {
			return n.mesh.Open(ctx, id, datapath.Protocol)
		}),
		Network: below{n.mesh}, Suites: session.Supported(hardwareAES),
	})
	n.mesh.Handle(datapath.Protocol, func(id identity.ID, s mesh.Stream) { n.datapath.HandleStream(id, s) })
	n.mesh.Handle(datapath.SessionProtocol, func(id identity.ID, s mesh.Stream) {
		n.datapath.HandleSession(id, s)
	})
	n.mesh.HandleDatagrams(func(from socket.Source, packets [][]byte) {
		n.datapath.HandleDatagrams(path.Path{Socket: from.Socket, Local: from.Local, Remote: from.Remote}, packets)
	})
	n.gossip = gossip.New(gossip.Config{
		Key: n.key, Mesh: mesh.Plain{Mesh: n.mesh}, Incarnation: n.state.Incarnation, Run: newRun(), Log: n.opts.Log,
	})
	for _, s := range n.state.Seen {
		n.mesh.Learn(s.ID, s.addrs())
	}
}

// newRun names this start of the node for the others.
func newRun() (run [wire.RunSize]byte) {
	_, _ = rand.Read(run[:]) // never fails, see crypto/rand
	return run
}

// hardwareAES: the processor has what AES-GCM needs to be faster than ChaCha20.
var hardwareAES = cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL

// below is the mesh as the datapath sees it.
type below struct{ *mesh.Mesh }

// OpenSession implements datapath.Network.
func (b below) OpenSession(ctx context.Context, id identity.ID) (datapath.SessionStream, error) {
	return b.Open(ctx, id, datapath.SessionProtocol)
}

// Sender implements datapath.Network.
func (b below) Sender(p path.Path) (datapath.Sender, error) {
	if !p.Direct() {
		return nil, errors.ErrUnsupported
	}
	return b.Mesh.Sender(socket.Source{Socket: p.Socket, Local: p.Local, Remote: p.Remote})
}

// Elsewhere implements datapath.Network.
func (b below) Elsewhere(id identity.ID) []path.Path { return paths(b.Mesh.Elsewhere(id)) }

// candidates are the paths that the connections of a peer take, as far as they are
// over UDP.
func (n *Node) candidates(id identity.ID) []path.Path { return paths(n.mesh.Sources(id)) }

func paths(sources []socket.Source) []path.Path {
	out := make([]path.Path, 0, len(sources))
	for _, from := range sources {
		out = append(out, path.Path{Socket: from.Socket, Local: from.Local, Remote: from.Remote})
	}
	return out
}

// run starts the loops. Whichever ends first ends the node, and its error is Wait's.
func (n *Node) run(ctx context.Context) {
	n.running, n.ctx = errgroup.WithContext(n.ctx)
	n.aloneSince = n.started
	n.watchAlone()
	n.reconcile()
	n.running.Go(func() error { return n.loop(n.ctx) })
	n.running.Go(func() error { return n.follow(n.ctx) })
	n.running.Go(func() error { return n.gossip.Run(n.ctx) })
	// The datapath outlives the loops: a goodbye still travels while they end.
	n.running.Go(func() error { return n.datapath.Run(n.ctx) })
	n.serve()
	end := func() { _ = n.Close() } // Wait reports it
	context.AfterFunc(ctx, end)
	context.AfterFunc(n.ctx, end)
}

// serve starts the API, whose handlers ask the node.
func (n *Node) serve() {
	cfg := api.Config{View: n, Control: n, SetCluster: n.setCluster, Extra: n.opts.Control, Ready: n.ready, Log: n.opts.Log}
	if n.opts.Metrics != nil {
		cfg.Metrics = n.opts.Metrics(n.metrics)
	}
	n.server = api.NewServer(cfg)
	if n.tcp != nil {
		n.running.Go(func() error { return n.server.ServeTCP(n.tcp) })
	}
	var guests []int
	if n.opts.SocketUID >= 0 {
		guests = append(guests, n.opts.SocketUID)
	}
	if n.socket != nil {
		n.running.Go(func() error { return n.server.ServeUnix(n.socket, guests...) })
	}
	if n.abstract != nil {
		n.running.Go(func() error { return n.server.ServeAbstract(n.abstract, guests...) })
	}
}

// ID returns the member's ID.
func (n *Node) ID() identity.ID { return n.key.ID() }

// Wait blocks until the node has closed and returns what ended it: nil after
// Close or the end of the context.
func (n *Node) Wait() error {
	<-n.finished
	return n.closed
}

// Close says goodbye if the member is a bridge, takes down what Start put up,
// and waits for it. A persistent interface stays. It is idempotent.
func (n *Node) Close() error {
	n.closing.Do(func() {
		n.leave()
		n.cancel()
		n.release()
		n.closed = n.running.Wait()
		close(n.finished)
	})
	<-n.finished
	return n.closed
}

// leaveTimeout bounds how long a goodbye may take.
const leaveTimeout = 3 * time.Second

// leave tells the others that this member will not come back. A node that
// stops may be restarting: its routes must stay where they are. What was
// written to a connection is lost when it is closed at once, so leave waits
// until the others, having read the goodbye, hang up: see hangUp.
func (n *Node) leave() {
	if n.opts.Kind != api.KindBridge {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	events, unsubscribe := n.mesh.Events()
	defer unsubscribe()
	listening := n.peersByID()
	if err := n.gossip.Leave(ctx); err != nil {
		n.opts.Log.Debug("not everybody heard the goodbye", "err", err)
		return
	}
	for len(listening) > 0 {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			if e.Kind == mesh.PeerDown {
				delete(listening, e.Peer)
			}
		}
	}
}

// release closes whatever is open, in the reverse order of open. Each part's
// Close is its own last word: an error there has nobody to act on it.
func (n *Node) release() {
	if n.server != nil {
		n.warn("close the api", n.server.Close())
	}
	if n.names != nil {
		n.warn("take the names back", n.names.close())
	}
	if n.mesh != nil {
		n.saveSeen()
		n.warn("close the mesh", n.mesh.Close())
	}
	if n.device != nil {
		n.warn("close the interface", n.device.Close())
	}
	for _, l := range []net.Listener{n.socket, n.abstract, n.tcp} {
		if l != nil {
			_ = l.Close() // closed already if it was served
		}
	}
	n.warn("give the state directory back", closeLock(n.lock)) // last: the state is another's from here on
}

func (n *Node) warn(what string, err error) {
	if err != nil {
		n.opts.Log.Warn("cannot "+what, "err", err)
	}
}
