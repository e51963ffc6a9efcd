package gossip

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/member"
	"github.com/kairos-io/kairos/overlay/wire"
)

// fill makes the gossip know n members, and returns the size of all records.
func fill(t testing.TB, g *Gossip, n int) (size int) {
	t.Helper()
	g.do(func(o *owned) {
		for i := range n {
			v, err := member.Verify(seal(t, testKey(t, 1000+i), wire.Record{Seq: 1}))
			if err == nil {
				_, err = o.core.table.Merge(v, g.cfg.Now())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		size = o.core.table.Bytes()
	})
	return size
}

// keepSaying lets the peer say what next returns as often as gossip takes it, and
// returns how many times that was and what it was answered, in bytes.
func (b *bench) keepSaying(long time.Duration, next func(i int) wire.Message) (said, answered int) {
	b.t.Helper()
	if err := b.in.SetWriteDeadline(time.Now().Add(long)); err != nil {
		b.t.Fatal(err)
	}
	finished := make(chan struct{})
	b.running.Go(func() {
		defer close(finished)
		for ; ; said++ {
			raw, err := wire.AppendMessage(nil, next(said))
			if err != nil {
				b.t.Error(err)
				return
			}
			if _, err := b.in.Write(raw); err != nil {
				return
			}
		}
	})
	_, answered = b.collect(long)
	<-finished
	return said, answered
}

// A peer that says the same again and again costs what a silent one does; one that
// varies it gets what its credit allows. (Once an empty digest of 6 bytes bought the
// whole table, 50 times a second.)
func TestHostileRequests(t *testing.T) {
	const minutes = 10
	asked := func(i int) identity.ID { return testKey(t, 1000+i%200).ID() }
	for _, c := range []struct {
		name string
		next func(i int) wire.Message
		most func(table, said int) int
	}{
		{"the same digest", func(int) wire.Message { return wire.Digest{} },
			func(table, _ int) int { return (minutes/10 + 1) * (table + 1000) }},
		{"the same want", func(int) wire.Message { return wire.Want{asked(0)} },
			func(_, _ int) int { return (minutes/10 + 1) * 1000 }},
		{"the same summary", func(int) wire.Message { return wire.Summary{Count: 9} },
			func(table, _ int) int { return 10 * 50 * 200 }}, // now and then a digest of 200
		{"digests that vary", func(i int) wire.Message { return wire.Digest{After: identity.ID{31: byte(i), 30: byte(i >> 8)}} },
			func(table, said int) int { return (minutes+2)*(table+creditExtra+table/50) + 100*said }},
		{"wants that vary", func(i int) wire.Message { return wire.Want{asked(i)} },
			func(table, said int) int { return (minutes+2)*(table+creditExtra+table/50) + 100*said }},
		{"invented numbers", func(i int) wire.Message {
			return wire.Digest{Entries: []wire.Entry{{ID: identity.ID{1, byte(i)}, Seq: math.MaxUint64}}}
		}, func(table, said int) int { return (minutes+2)*(table+creditExtra+table/50) + 100*said }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(c *Config) { c.Refresh, c.Limits.Expiry = 1000*time.Hour, 1000*time.Hour }, func(b *bench) {
				b.hello()
				table := fill(t, b.g, 200)
				said, answered := b.keepSaying(minutes*time.Minute, c.next)
				t.Logf("said %d times in %d minutes, answered with %d bytes (the table has %d)", said, minutes, answered, table)
				if most := minutes*60*messagesPerSecond + messagesBurst + 1; said > most {
					t.Errorf("%d messages were read, want at most %d", said, most)
				}
				if most := c.most(table, said); answered > most {
					t.Errorf("answered with %d bytes, want at most %d", answered, most)
				}
			})
		})
	}
}

// Large messages wait before they are read, known or not.
func TestHostileSizes(t *testing.T) {
	for name, kind := range map[string]byte{"unknown": 99, "delta": 2} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(b *bench) {
				b.hello()
				body := bytes.Repeat([]byte{0}, wire.MaxMessage)
				if kind == 2 { // records of 8 KiB, none of which is one
					body = nil
					for range wire.MaxMessage / (2 + wire.MaxRecord) {
						body = append(binary.BigEndian.AppendUint16(body, wire.MaxRecord), make([]byte, wire.MaxRecord)...)
					}
				}
				raw := append(binary.BigEndian.AppendUint32([]byte{kind, 1}, uint32(len(body))), body...)
				if err := b.in.SetWriteDeadline(time.Now().Add(10 * time.Minute)); err != nil {
					t.Fatal(err)
				}
				size := 0
				for {
					n, err := b.in.Write(raw)
					size += n
					if err != nil {
						break
					}
				}
				if most := bytesBurst + 600*bytesPerSecond + wire.MaxMessage; size > most {
					t.Errorf("read %d bytes in 10 minutes, want at most %d", size, most)
				}
				if b.g.Stats().RecordsRefused == 0 && kind == 2 {
					t.Error("the junk was not refused")
				}
			})
		})
	}
}

// Whoever announces a message and does not send it loses the stream.
func TestHostileSilence(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		b.write([]byte{2, 1, 0, 1, 0, 0, 7})
		begin := time.Now()
		if _, err := b.in.Read(make([]byte, 1)); err == nil || time.Since(begin) > 2*bodyTimeout {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

// Of many streams a few are read, and a new one costs what a message costs.
func TestHostileStreams(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.hello()
		streams := []pipe{b.in}
		for range 1000 {
			streams = append(streams, b.mesh.accept(&b.running, b.peer.ID()))
		}
		synctest.Wait()
		b.g.inbound.mu.Lock()
		r := b.g.inbound.readers[b.peer.ID()]
		waiting := r.waiting
		b.g.inbound.mu.Unlock()
		// The first ones were admitted, and reset by their followers.
		if waiting < 1000-messagesBurst || waiting > 1001-messagesBurst+maxStreams {
			t.Errorf("%d streams wait", waiting)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		open := 0
		for _, s := range streams {
			if err := s.SetReadDeadline(time.Now().Add(time.Millisecond)); err == nil {
				open++ // a pipe whose other end is closed has no deadlines
			}
		}
		if open != maxStreams {
			t.Errorf("%d streams are open, want the last %d", open, maxStreams)
		}
		for _, s := range streams {
			_ = s.Close()
		}
	})
}

// A peer that never reads costs one batch, and keeps nothing from others.
func TestHostileNeverReads(t *testing.T) {
	inBubble(t, nil, func(b *bench) { // b.out is not read
		other := testKey(t, 3).ID()
		b.mesh.events <- link.Event{Kind: link.PeerUp, Peer: other}
		good := <-b.mesh.opened
		b.running.Go(func() { _, _ = io.Copy(io.Discard, good) })
		goroutines := runtime.NumGoroutine()
		for i := range 1000 {
			r := wire.Record{Name: "self", Kind: wire.KindNode, Annotations: map[string]string{"i": string(rune('a'+i%26)) + string(rune('a'+i/26%26))}}
			if err := b.g.Publish(r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		b.g.do(func(o *owned) {
			if p := o.core.byID[b.peer.ID()]; len(p.dirty) > 1 {
				t.Errorf("%d records wait for who does not read", len(p.dirty))
			}
		})
		if got := runtime.NumGoroutine(); got > goroutines+2 {
			t.Errorf("%d goroutines, %d before", got, goroutines)
		}
		if sent := b.g.Stats().RecordsSent; sent < 1000 {
			t.Errorf("%d records reached the other peer", sent)
		}
		_ = good.Close()
	})
}
