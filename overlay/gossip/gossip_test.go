package gossip

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// pipe is a stream in memory.
type pipe struct{ net.Conn }

func (p pipe) CloseWrite() error { return p.Close() }
func (p pipe) Reset() error      { return p.Close() }

// fakeMesh has one peer, played by the test.
type fakeMesh struct {
	events chan link.Event
	opened chan net.Conn // the test's ends of the streams that gossip opened

	mu      sync.Mutex
	handler func(identity.ID, link.Stream)
	learned map[identity.ID][]netip.AddrPort
	forgot  []identity.ID
}

func (m *fakeMesh) Open(context.Context, identity.ID, string) (link.Stream, error) {
	ours, theirs := net.Pipe()
	m.opened <- theirs
	return pipe{ours}, nil
}

func (m *fakeMesh) Handle(_ string, h func(identity.ID, link.Stream)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handler = h
}

func (m *fakeMesh) Events() (<-chan link.Event, func()) { return m.events, func() {} }

func (m *fakeMesh) Learn(id identity.ID, underlay []netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learned[id] = underlay
}

func (m *fakeMesh) Forget(id identity.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgot = append(m.forgot, id)
}

func newKey(t testing.TB) identity.Key {
	t.Helper()
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// bench is a gossip under test with a peer that the test plays.
type bench struct {
	t     *testing.T
	g     *Gossip
	mesh  *fakeMesh
	table *member.Table
	key   identity.Key
	peer  identity.Key
	out   net.Conn // what gossip writes to the peer
	in    net.Conn // what the peer writes to gossip
}

func newBench(t *testing.T, change func(*Config)) *bench {
	b := &bench{t: t, key: newKey(t), peer: newKey(t)}
	b.mesh = &fakeMesh{events: make(chan link.Event), opened: make(chan net.Conn, 1), learned: make(map[identity.ID][]netip.AddrPort)}
	b.table = member.New(b.key.ID(), member.Limits{})
	cfg := Config{Key: b.key, Table: b.table, Mesh: b.mesh, Interval: time.Hour, Incarnation: 3}
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
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.g.Run(ctx); err != nil {
			b.t.Error(err)
		}
	})
	b.mesh.events <- link.Event{Kind: link.PeerUp, Peer: b.peer.ID()}
	b.out = <-b.mesh.opened
	ours, theirs := net.Pipe()
	b.in = theirs
	b.mesh.mu.Lock()
	handler := b.mesh.handler
	b.mesh.mu.Unlock()
	running.Go(func() { handler(b.peer.ID(), pipe{ours}) })
	b.t.Cleanup(func() {
		cancel()
		_ = b.out.Close()
		_ = b.in.Close()
		running.Wait()
	})
}

// next reads one message that gossip wrote to the peer.
func (b *bench) next() wire.Message {
	b.t.Helper()
	if err := b.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	m, err := wire.ReadMessage(b.out)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bench) say(m wire.Message) {
	b.t.Helper()
	if err := b.in.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	if err := wire.WriteMessage(b.in, m); err != nil {
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
	m, ok := b.table.Get(b.key.ID())
	if !ok {
		b.t.Fatal("no record of its own")
	}
	return m.Record
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

func TestPublishNumbers(t *testing.T) {
	b := newBench(t, nil)
	first := b.own().Seq
	if first != 3<<32+1 {
		t.Errorf("first number %#x, want the third start's first", first)
	}
	notes := map[string]string{"a": "1"}
	r := wire.Record{Name: "self", Kind: wire.KindNode, Annotations: notes}
	for _, step := range []struct {
		change func()
		want   uint64
	}{
		{func() {}, first + 1},
		{func() {}, first + 1}, // the same again
		{func() { notes["a"] = "2" }, first + 2},
		{func() { r.Pinned = true }, first + 3},
		{func() { r.Underlay = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")} }, first + 4},
	} {
		step.change()
		if err := b.g.Publish(r); err != nil {
			t.Fatal(err)
		}
		if got := b.own().Seq; got != step.want {
			t.Errorf("number %#x, want %#x", got, step.want)
		}
	}
	r.Name = "not a label!"
	if err := b.g.Publish(r); err == nil || b.own().Seq != first+4 {
		t.Errorf("an invalid record was published: %v", err)
	}
}

// What a peer needs goes out at once and once: digest, missing records, changes.
func TestExchange(t *testing.T) {
	b := newBench(t, nil)
	b.run()
	if m := b.next(); len(m.Delta) != 1 {
		t.Fatalf("first message %+v, want the own record", m)
	}
	if m := b.next(); m.Digest[b.key.ID()] != b.own().Seq {
		t.Fatalf("second message %+v, want the digest", m)
	}
	third := newKey(t)
	b.say(wire.Message{Digest: wire.Digest{b.key.ID(): b.own().Seq, third.ID(): 5}})
	if m := b.next(); m.Digest == nil {
		t.Fatalf("answer %+v to a digest with something new, want ours", m)
	}
	b.say(wire.Message{Delta: wire.Delta{seal(t, third, wire.Record{Seq: 5, Underlay: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:1")}})}})
	until(t, "the third is known", func() bool { _, ok := b.table.Get(third.ID()); return ok })
	<-b.g.Changes()
	b.mesh.mu.Lock()
	if got := b.mesh.learned[third.ID()]; len(got) != 1 || got[0].String() != "192.0.2.9:1" {
		t.Errorf("learned %v", got)
	}
	b.mesh.mu.Unlock()
	if err := b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode, Version: "2"}); err != nil {
		t.Fatal(err)
	}
	m := b.next()
	if len(m.Delta) != 1 {
		t.Fatalf("%d records, want the changed one alone: the peer told us the other", len(m.Delta))
	}
	if id, _, _ := m.Delta[0].Head(); id != b.key.ID() {
		t.Errorf("record of %s", id.Short())
	}
}

// A peer is taken at its word: what it says it lacks, it gets, even twice.
func TestDigestIsAnswered(t *testing.T) {
	b := newBench(t, nil)
	b.run()
	b.next()
	b.next()
	for range 3 {
		b.say(wire.Message{Digest: wire.Digest{}})
		if m := b.next(); len(m.Delta) != 1 {
			t.Fatalf("answered %+v, want the own record", m)
		}
	}
}

// Digests go out now and then without any reason.
func TestDigestsRecur(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Interval = 10 * time.Millisecond })
	b.run()
	b.next()
	for i := range 5 {
		if m := b.next(); m.Digest == nil {
			t.Fatalf("message %d: %+v, want a digest", i, m)
		}
	}
}

// An own record from an earlier life is jumped over, but only a real one.
func TestJump(t *testing.T) {
	b := newBench(t, nil)
	b.run()
	b.next()
	b.next()
	forged := bytes.Clone(seal(t, b.key, wire.Record{Seq: 9 << 32, Name: "old", Kind: wire.KindNode}))
	forged[len(forged)-1] ^= 1
	b.say(wire.Message{Delta: wire.Delta{forged}})
	b.say(wire.Message{Delta: wire.Delta{seal(t, b.key, wire.Record{Seq: 7 << 32, Name: "old", Kind: wire.KindNode})}})
	m := b.next()
	if id, seq, _ := m.Delta[0].Head(); id != b.key.ID() || seq != 7<<32+1 {
		t.Errorf("answered with %#x of %s, want one more than the earlier life's", seq, id.Short())
	}
	if got := b.own(); got.Name != "self" {
		t.Errorf("the earlier life won: %+v", got)
	}
}

// Nobody speaks for another, and junk is counted.
func TestForgery(t *testing.T) {
	b := newBench(t, nil)
	b.run()
	b.next()
	b.next()
	third := newKey(t)
	good := seal(t, third, wire.Record{Seq: 1})
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	b.say(wire.Message{Delta: wire.Delta{forged, wire.Signed("junk"), {}}})
	until(t, "the junk is counted", func() bool { return b.g.Stats().RecordsRefused == 3 })
	if _, ok := b.table.Get(third.ID()); ok {
		t.Error("a forged record was taken")
	}
	b.say(wire.Message{Delta: wire.Delta{good}})
	until(t, "the good one is taken", func() bool { _, ok := b.table.Get(third.ID()); return ok })
	// A message that is no message ends the stream, nothing more.
	if _, err := b.in.Write([]byte("GET / HTTP/1.1\r\n")); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	if _, err := b.in.Read(make([]byte, 1)); err == nil {
		t.Error("the stream goes on")
	}
}

func TestRefreshAndExpiry(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	b := newBench(t, func(c *Config) {
		c.Sweep = time.Millisecond
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	b.run()
	b.next()
	b.next()
	third := newKey(t)
	b.say(wire.Message{Delta: wire.Delta{seal(t, third, wire.Record{Seq: 1})}})
	until(t, "the third is known", func() bool { _, ok := b.table.Get(third.ID()); return ok })
	before := b.own().Seq
	mu.Lock()
	now = now.Add(member.Refresh)
	mu.Unlock()
	if id, seq, _ := b.next().Delta[0].Head(); id != b.key.ID() || seq != before+1 {
		t.Errorf("refreshed %s with %#x", id.Short(), seq)
	}
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	until(t, "the third expires and is forgotten", func() bool {
		b.mesh.mu.Lock()
		defer b.mesh.mu.Unlock()
		_, ok := b.table.Get(third.ID())
		return !ok && len(b.mesh.forgot) == 1 && b.mesh.forgot[0] == third.ID()
	})
}

// A broken stream is opened again, and nothing is lost with the old one.
func TestStreamBreaks(t *testing.T) {
	b := newBench(t, nil)
	b.run()
	b.next()
	b.next()
	_ = b.out.Close()
	if err := b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode, Version: "2"}); err != nil {
		t.Fatal(err)
	}
	b.out = <-b.mesh.opened
	if m := b.next(); m.Digest == nil {
		t.Fatalf("%+v after a broken stream, want a digest", m)
	}
	b.say(wire.Message{Digest: wire.Digest{}})
	m := b.next()
	for m.Digest != nil {
		m = b.next()
	}
	if _, seq, _ := m.Delta[0].Head(); seq != b.own().Seq {
		t.Errorf("sent version %#x, want the newest", seq)
	}
}

// What went to a connection that another replaced may be lost: gossip starts
// over on the new one, and gives the old stream up.
func TestPathChanges(t *testing.T) {
	b := newBench(t, nil)
	b.run()
	b.next()
	b.next()
	old := b.out
	b.mesh.events <- link.Event{Kind: link.PathChanged, Peer: b.peer.ID()}
	select {
	case b.out = <-b.mesh.opened:
	case <-time.After(patience):
		t.Fatal("no stream on the new connection")
	}
	for m := b.next(); m.Digest == nil; m = b.next() { // after the own record, as at the start
		if len(m.Delta) == 0 {
			t.Fatalf("%+v on the new connection", m)
		}
	}
	if m, err := wire.ReadMessage(old); !errors.Is(err, io.EOF) {
		t.Errorf("the old stream gave %+v, %v, want its end", m, err)
	}
	b.say(wire.Message{Digest: wire.Digest{}})
	for m := b.next(); len(m.Delta) == 0; m = b.next() {
	}
}

func TestLeaveWithoutAnybody(t *testing.T) {
	b := newBench(t, nil)
	if err := b.g.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode}); !errors.Is(err, ErrLeft) {
		t.Errorf("publish after leaving: %v", err)
	}
	if _, ok := b.table.Get(b.key.ID()); ok {
		t.Error("still listed")
	}
}
