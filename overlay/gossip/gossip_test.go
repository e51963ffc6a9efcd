package gossip

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

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
		{func() { r.Credential = []byte{1} }, first + 5},
	} {
		step.change()
		if err := b.g.Publish(r); err != nil {
			t.Fatal(err)
		}
		if got := b.own(); got.Seq != step.want || got.Run != (member.Run{1}) {
			t.Errorf("number %#x of run %x, want %#x", got.Seq, got.Run, step.want)
		}
	}
	r.Name = "not a label!"
	if err := b.g.Publish(r); err == nil || b.own().Seq != first+5 {
		t.Errorf("an invalid record was published: %v", err)
	}
}

// What a peer needs goes out at once and once: the own record and a summary, what
// it asks for, what it lacks, changes.
func TestExchange(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		third := testKey(t, 3)
		b.say(wire.Digest{Entries: []wire.Entry{{ID: third.ID(), Seq: 5}}})
		if id := b.nextRecord(); id != b.key.ID() {
			t.Errorf("sent the record of %s, which was not asked for", id.Short())
		}
		if m, ok := b.next().(wire.Want); !ok || len(m) != 1 || m[0] != third.ID() {
			t.Fatalf("%+v in answer to something new, want it to be asked for", m)
		}
		if _, ok := b.next().(wire.Summary); !ok {
			t.Fatal("no summary at the end of an answer")
		}
		where := netip.MustParseAddrPort("192.0.2.9:1")
		b.say(wire.Delta{seal(t, third, wire.Record{Seq: 5, Underlay: []netip.AddrPort{where}})})
		<-b.g.Changes()
		if !b.knows(third) {
			t.Fatal("a new member is not known")
		}
		b.mesh.mu.Lock()
		if got := b.mesh.learned[third.ID()]; len(got) != 1 || got[0] != where {
			t.Errorf("learned %v", got)
		}
		b.mesh.mu.Unlock()
		if err := b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode, Version: "2"}); err != nil {
			t.Fatal(err)
		}
		if id := b.nextRecord(); id != b.key.ID() {
			t.Errorf("record of %s: the peer told us that", id.Short())
		}
	})
}

// Whose summary is the same needs no more; whose is another one is compared with.
func TestSummaries(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		var same wire.Summary
		b.g.do(func(o *owned) { same = o.core.table.Summary() })
		b.say(same)
		if got, _ := b.collect(time.Minute); len(got) != 0 {
			t.Errorf("%+v in answer to an equal summary", got)
		}
		b.say(wire.Summary{Hash: [32]byte{1}, Count: 9}) // the peer knows more
		d, ok := b.next().(wire.Digest)
		if !ok || len(d.Entries) != 1 || d.Entries[0].ID != b.key.ID() {
			t.Errorf("%+v in answer to another summary, want a digest", d)
		}
	})
}

// Summaries go out now and then without any reason.
func TestSummariesRecur(t *testing.T) {
	inBubble(t, func(c *Config) { c.Interval, c.Refresh = time.Minute, time.Hour }, func(b *bench) {
		b.hello()
		begin := time.Now()
		for range 10 {
			if m, ok := b.next().(wire.Summary); !ok {
				t.Fatalf("%+v, want a summary", m)
			}
		}
		if took := time.Since(begin); took < 7*time.Minute || took > 13*time.Minute {
			t.Errorf("10 within %s", took)
		}
	})
}

// An own record from an earlier life is jumped over, but only a real one.
func TestJump(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		forged := bytes.Clone(seal(t, b.key, wire.Record{Seq: 9 << 32, Name: "old", Kind: wire.KindNode}))
		forged[len(forged)-1] ^= 1
		b.say(wire.Delta{forged})
		b.say(wire.Delta{seal(t, b.key, wire.Record{Seq: 7<<32 + 5, Name: "old", Kind: wire.KindNode})})
		if d := b.next().(wire.Delta); len(d) != 1 {
			t.Errorf("%d records", len(d))
		} else if id, seq, _ := d[0].Head(); id != b.key.ID() || seq != 8<<32+1 {
			t.Errorf("answered with %#x of %s, want the beginning of the next upper half", seq, id.Short())
		}
		if got := b.own(); got.Name != "self" {
			t.Errorf("the earlier life won: %+v", got)
		}
	})
}

// Nobody speaks for another, and junk is counted.
func TestForgery(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		third := testKey(t, 3)
		good := seal(t, third, wire.Record{Seq: 1})
		forged := bytes.Clone(good)
		forged[len(forged)-1] ^= 1
		b.say(wire.Delta{forged, wire.Signed("junk"), {}})
		if b.knows(third) || b.g.Stats().RecordsRefused != 3 {
			t.Errorf("a forged record was taken, or %d refused instead of 3", b.g.Stats().RecordsRefused)
		}
		b.say(wire.Delta{good})
		if !b.knows(third) {
			t.Error("the good one is not taken")
		}
		// A message that is no message ends the stream, nothing more.
		b.write([]byte("GET / HTTP/1.1\r\n"))
		if _, err := b.in.Read(make([]byte, 1)); err == nil {
			t.Error("the stream goes on")
		}
	})
}

// What a later version says besides does no harm.
func TestUnknownKinds(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		for _, kind := range []byte{0, 5, 100, 255} {
			b.write([]byte{kind, 1, 0, 0, 0, 3, 'n', 'e', 'w'})
		}
		third := testKey(t, 3)
		b.say(wire.Delta{seal(t, third, wire.Record{Seq: 1})})
		if !b.knows(third) || b.g.Stats().Skipped != 4 {
			t.Errorf("skipped %d messages, want 4 and to go on", b.g.Stats().Skipped)
		}
	})
}

func TestRefreshAndExpiry(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		third := testKey(t, 3)
		b.say(wire.Delta{seal(t, third, wire.Record{Seq: 1})})
		if !b.knows(third) {
			t.Fatal("the third is not known")
		}
		<-b.g.Changes()
		before := b.own().Seq
		if id := b.nextRecord(); id != b.key.ID() {
			t.Errorf("refreshed %s", id.Short())
		}
		synctest.Wait()
		if got := b.own().Seq; got != before+1 {
			t.Errorf("the snapshot has %#x after a refresh, want %#x", got, before+1)
		}
		for range 10 { // the own record is refreshed every 10 minutes
			b.collect(9 * time.Minute)
		}
		if b.knows(third) {
			t.Error("the third does not expire")
		}
		select {
		case <-b.g.Changes():
		default:
			t.Error("nobody is told")
		}
		b.mesh.mu.Lock()
		defer b.mesh.mu.Unlock()
		if len(b.mesh.forgot) != 1 || b.mesh.forgot[0] != third.ID() {
			t.Errorf("the mesh forgot %d", len(b.mesh.forgot))
		}
	})
}

// A broken stream is opened again, and nothing is lost with the old one.
func TestStreamBreaks(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		_ = b.out.Close()
		if err := b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode, Version: "2"}); err != nil {
			t.Fatal(err)
		}
		b.out = <-b.mesh.opened
		b.hello()
		b.say(wire.Digest{})
		if d := b.next().(wire.Delta); len(d) != 1 {
			t.Errorf("%d records", len(d))
		} else if _, seq, _ := d[0].Head(); seq != b.own().Seq {
			t.Errorf("sent version %#x, want the newest", seq)
		}
	})
}

// What went to a connection that another replaced may be lost: gossip starts
// over on the new one, and gives the old stream up.
func TestPathChanges(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		old := b.out
		b.mesh.events <- link.Event{Kind: link.PathChanged, Peer: b.peer.ID()}
		b.out = <-b.mesh.opened
		b.hello()
		if _, err := old.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the old stream gave %v, want its end", err)
		}
	})
}

func TestLeaveWithoutAnybody(t *testing.T) {
	b := newBench(t, nil)
	if err := b.g.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode}); !errors.Is(err, ErrLeft) {
		t.Errorf("publish after leaving: %v", err)
	}
	if _, ok := b.g.Members().Get(b.key.ID()); ok {
		t.Error("still listed")
	}
}

// A goodbye is waited for until it is read, and no longer than the caller wants.
func TestLeave(t *testing.T) {
	for _, reads := range []bool{true, false} {
		inBubble(t, nil, func(b *bench) {
			b.hello()
			if reads {
				b.running.Go(func() {
					b.nextRecord()
					_, err := b.out.Read(make([]byte, 1))
					if !errors.Is(err, io.EOF) {
						t.Errorf("%v after the goodbye, want the end", err)
					}
					_ = b.out.Close()
				})
			}
			ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
			defer cancel()
			if err := b.g.Leave(ctx); (err == nil) != reads {
				t.Errorf("the peer reads: %v, leaving: %v", reads, err)
			}
		})
	}
}

// A goodbye is in no comparison of tables: one that was lost with its stream, or
// with the stream after it, is said again, the node's own and another's.
func TestGoodbyeIsLost(t *testing.T) {
	for name, lose := range map[string]func(b *bench){
		"reset before it was read": func(b *bench) { _ = b.out.Reset() },
		"reset when it was read": func(b *bench) {
			b.nextRecord()
			_ = b.out.Reset()
		},
		"read halfway": func(b *bench) {
			_, _ = b.out.Read(make([]byte, 1))
			_ = b.out.Reset()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(b *bench) {
				b.hello()
				b.running.Go(func() {
					lose(b)
					b.out = <-b.mesh.opened
					if got := b.nextRecord(); got != b.key.ID() {
						t.Errorf("the record of %s, want the goodbye", got.Short())
					}
					_, _ = io.Copy(io.Discard, b.out)
					_ = b.out.Close()
				})
				ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Second)
				defer cancel()
				if err := b.g.Leave(ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestGoodbyeOfAnotherIsLost(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		b.mesh.events <- link.Event{Kind: link.PeerUp, Peer: testKey(t, 4).ID()}
		first, third := <-b.mesh.opened, testKey(t, 3)
		b.running.Go(func() { _, _ = io.Copy(io.Discard, first) })
		b.say(wire.Delta{seal(t, third, wire.Record{Seq: 1})})
		synctest.Wait()
		_ = first.Reset()
		b.say(wire.Delta{seal(t, third, wire.Record{Seq: 2, Left: true})})
		second := <-b.mesh.opened
		m, err := wire.NewMessageReader(second, nil).Next()
		if err != nil {
			t.Fatal(err)
		}
		d, _ := m.(wire.Delta)
		if !slices.ContainsFunc(d, func(s wire.Signed) bool {
			id, seq, _ := s.Head()
			return id == third.ID() && seq == 2
		}) {
			t.Errorf("after a broken stream it heard %T of %d, want another's goodbye in it", m, len(d))
		}
		_ = second.Close()
	})
}

// Two connections may come up at once, and their streams in either order: what is
// written to the one that the peer keeps is read.
func TestStreamsCross(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		newer := b.in
		older := b.mesh.accept(&b.running, b.peer.ID()) // opened before, and handed over after
		b.in = newer
		b.say(wire.Delta{seal(t, testKey(t, 3), wire.Record{Seq: 1})})
		if !b.knows(testKey(t, 3)) {
			t.Error("the peer's stream was given up for one that it had left")
		}
		_ = older.Close()
	})
}

// Publish, sweeps, events, what is heard and what the mesh does meanwhile never wait
// for each other in a circle: there is one owner, and it waits for nobody. (Once the
// locks of gossip and of the table were taken in both orders.)
func TestNothingWaitsInACircle(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Sweep = time.Millisecond })
	entered := make(chan struct{}, 1)
	b.mesh.called = func() { // the mesh calls back while it is told something
		_ = b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode, Version: "called"})
		b.g.Members()
		select {
		case entered <- struct{}{}:
		default:
		}
	}
	b.run()
	defer b.stop()
	b.running.Go(func() { _, _ = io.Copy(io.Discard, b.out) })
	var busy sync.WaitGroup
	for range 3 {
		busy.Go(func() {
			for i := range 100 {
				_ = b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode, Annotations: map[string]string{"n": string(rune('a' + i%26))}})
			}
		})
	}
	busy.Go(func() {
		for i := range 100 {
			b.say(wire.Delta{seal(t, testKey(t, 10+i), wire.Record{Seq: 1})})
		}
	})
	busy.Go(func() {
		for range 50 {
			b.mesh.events <- link.Event{Kind: link.PeerDown, Peer: testKey(t, 5).ID()}
			b.mesh.events <- link.Event{Kind: link.PeerUp, Peer: testKey(t, 5).ID()}
		}
	})
	done, stop := make(chan struct{}), make(chan struct{})
	b.running.Go(func() { // streams to the peer that comes and goes
		for {
			select {
			case c := <-b.mesh.opened:
				_ = c.Close()
			case <-stop:
				return
			}
		}
	})
	defer close(stop)
	go func() { busy.Wait(); <-entered; close(done) }()
	select {
	case <-done:
	case <-time.After(4 * time.Minute):
		panic("nothing moves")
	}
}

// Who asks before, while and after Run runs gets an answer.
func TestOwnership(t *testing.T) {
	b := newBench(t, nil)
	var asking sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		asking.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := b.g.Publish(wire.Record{Name: "self", Kind: wire.KindNode, Annotations: map[string]string{"i": string(rune('a' + i%26))}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if err := b.g.Run(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	close(stop)
	asking.Wait()
}
