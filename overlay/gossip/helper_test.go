package gossip

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe is one end of a stream in memory, a net.Pipe for each direction.
type pipe struct {
	net.Conn          // what is read, and the rest
	write    net.Conn // what is written
	broken   *atomic.Bool
}

var errReset = errors.New("stream reset")

// pipes returns the two ends of a stream.
func pipes() (ours, theirs pipe) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	broken := new(atomic.Bool)
	return pipe{r1, w2, broken}, pipe{r2, w1, broken}
}

func (p pipe) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	return n, p.told(err)
}

func (p pipe) Write(b []byte) (int, error) {
	n, err := p.write.Write(b)
	return n, p.told(err)
}

// told makes a reset of an end.
func (p pipe) told(err error) error {
	if err != nil && p.broken.Load() {
		return errReset
	}
	return err
}

func (p pipe) SetWriteDeadline(t time.Time) error { return p.write.SetWriteDeadline(t) }
func (p pipe) CloseWrite() error                  { return p.write.Close() }
func (p pipe) Close() error                       { return errors.Join(p.write.Close(), p.Conn.Close()) }

func (p pipe) Reset() error {
	p.broken.Store(true)
	return p.Close()
}

// fakeMesh has one peer, played by the test.
type fakeMesh struct {
	events chan link.Event
	opened chan pipe // the test's ends of the streams that gossip opened

	mu      sync.Mutex
	handler func(identity.ID, link.Stream)
	learned map[identity.ID][]netip.AddrPort
	forgot  []identity.ID
	called  func() // by Learn and Forget
}

func newFakeMesh() *fakeMesh {
	return &fakeMesh{
		events: make(chan link.Event), opened: make(chan pipe, 8),
		learned: make(map[identity.ID][]netip.AddrPort), called: func() {},
	}
}

func (m *fakeMesh) Open(ctx context.Context, _ identity.ID, _ string) (link.Stream, error) {
	ours, theirs := pipes()
	select {
	case m.opened <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *fakeMesh) Handle(_ string, h func(identity.ID, link.Stream)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handler = h
}

func (m *fakeMesh) Events() (<-chan link.Event, func()) { return m.events, func() {} }

func (m *fakeMesh) Learn(id identity.ID, underlay []netip.AddrPort) {
	m.called()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learned[id] = underlay
}

func (m *fakeMesh) Forget(id identity.ID) {
	m.called()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgot = append(m.forgot, id)
}

// accept hands a stream of the peer to gossip, and returns the peer's end.
func (m *fakeMesh) accept(running *sync.WaitGroup, peer identity.ID) pipe {
	ours, theirs := pipes()
	m.mu.Lock()
	handler := m.handler
	m.mu.Unlock()
	running.Go(func() { handler(peer, ours) })
	return theirs
}

// bench is a gossip under test with a peer that the test plays, in a bubble of
// synthetic time.
type bench struct {
	t       *testing.T
	g       *Gossip
	mesh    *fakeMesh
	key     identity.Key
	peer    identity.Key
	out     pipe // what gossip writes to the peer
	in      pipe // what the peer writes to gossip
	running sync.WaitGroup
	cancel  context.CancelFunc
}

// inBubble runs a test with a gossip that runs and is connected to its peer.
func inBubble(t *testing.T, change func(*Config), test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, change)
		b.run()
		defer b.stop()
		test(b)
	})
}

func newBench(t *testing.T, change func(*Config)) *bench {
	b := &bench{t: t, key: testKey(t, 1), peer: testKey(t, 2), mesh: newFakeMesh()}
	cfg := Config{Key: b.key, Mesh: b.mesh, Interval: time.Hour, Incarnation: 3, Run: [wire.RunSize]byte{1}}
	if change != nil {
		change(&cfg)
	}
	b.g = New(cfg)
	if err := b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode}); err != nil {
		t.Fatal(err)
	}
	return b
}

// run starts the gossip and connects the peer.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.running.Go(func() {
		if err := b.g.Run(ctx); err != nil {
			b.t.Error(err)
		}
	})
	b.mesh.events <- link.Event{Kind: link.PeerUp, Peer: b.peer.ID()}
	b.out = <-b.mesh.opened
	b.in = b.mesh.accept(&b.running, b.peer.ID())
}

func (b *bench) stop() {
	b.cancel()
	_ = b.out.Close()
	_ = b.in.Close()
	b.running.Wait()
}

// next reads one message that gossip wrote to the peer.
func (b *bench) next() wire.Message {
	b.t.Helper()
	if err := b.out.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		b.t.Fatal(err)
	}
	m, err := wire.NewMessageReader(b.out, nil).Next()
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// hello reads what every peer is told first.
func (b *bench) hello() {
	b.t.Helper()
	if id := b.nextRecord(); id != b.key.ID() {
		b.t.Fatalf("began with the record of %s", id.Short())
	}
	if m, ok := b.next().(wire.Summary); !ok {
		b.t.Fatalf("%+v instead of a summary", m)
	}
}

func (b *bench) nextRecord() identity.ID {
	b.t.Helper()
	d, ok := b.next().(wire.Delta)
	if !ok || len(d) != 1 {
		b.t.Fatalf("%T of %d instead of one record", d, len(d))
	}
	id, _, _ := d[0].Head()
	return id
}

// collect reads until the gossip has nothing to say for a while.
func (b *bench) collect(while time.Duration) (messages []wire.Message, size int) {
	b.t.Helper()
	for {
		if err := b.out.SetReadDeadline(time.Now().Add(while)); err != nil {
			b.t.Fatal(err)
		}
		m, err := wire.NewMessageReader(b.out, func(n int) error { size += n; return nil }).Next()
		if err != nil {
			return messages, size
		}
		messages = append(messages, m)
	}
}

func (b *bench) say(m wire.Message) {
	b.t.Helper()
	raw, err := wire.AppendMessage(nil, m)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write(raw)
}

func (b *bench) write(raw []byte) {
	b.t.Helper()
	if _, err := b.in.Write(raw); err != nil && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, errReset) {
		b.t.Fatal(err)
	}
}

func seal(t testing.TB, key identity.Key, r wire.Record) wire.Signed {
	t.Helper()
	if r.Name == "" {
		r.Name, r.Kind = "node", wire.KindNode
	}
	s, err := wire.Seal(key, r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bench) own() wire.Record {
	b.t.Helper()
	m, ok := b.g.Members().Get(b.key.ID())
	if !ok {
		b.t.Fatal("no record of its own")
	}
	return m.Record
}

func (b *bench) knows(key identity.Key) bool {
	synctest.Wait()
	_, ok := b.g.Members().Get(key.ID())
	return ok
}
