package gossip

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/wire"
)

// BenchmarkPeers measures what each of 249 connected peers costs a node that knows
// 250 members, streams in memory apart.
func BenchmarkPeers(b *testing.B) {
	const n = 249
	for b.Loop() {
		measurePeers(b, n)
	}
}

// sinks is a mesh whose peers read everything and say nothing.
type sinks struct{ *fakeMesh }

func (m *sinks) Open(context.Context, identity.ID, string) (link.Stream, error) { return sink{}, nil }

// sink is a stream that takes everything at once.
type sink struct{ link.Stream }

func (sink) Write(b []byte) (int, error)      { return len(b), nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }
func (sink) Close() error                     { return nil }

func measurePeers(b *testing.B, n int) {
	mesh := &sinks{fakeMesh: newFakeMesh()}
	g := New(Config{Key: testKey(b, 1), Mesh: mesh, Incarnation: 1})
	if err := g.Publish(wire.Record{Name: "self", Kind: wire.KindNode}); err != nil {
		b.Fatal(err)
	}
	fill(b, g, n)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.Run(ctx) })
	before, goroutines := inUse(), runtime.NumGoroutine()
	for i := range n {
		mesh.events <- link.Event{Kind: link.PeerUp, Peer: testKey(b, 1000+i).ID()}
	}
	for g.Stats().SummariesSent < uint64(n) {
		runtime.Gosched()
	}
	g.do(func(*owned) {})
	b.ReportMetric(float64(inUse()-before)/float64(n), "B/peer")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(n), "goroutines/peer")
	cancel()
	running.Wait()
	runtime.KeepAlive(g)
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
