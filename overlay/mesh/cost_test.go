package mesh

import (
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"
)

// What a connection costs: n nodes in one process, each connected to each.
func TestCostOfAPeer(t *testing.T) {
	const n = 12
	keys := testKeys(t)
	heap, routines := atRest(t)
	nodes := make([]*Mesh, n)
	for i := range nodes {
		nodes[i] = start(t, Config{Keys: keys, Timing: Timing{Grace: 100 * time.Millisecond}})
	}
	heap0, routines0 := atRest(t)
	var learning sync.WaitGroup
	for i, m := range nodes {
		learning.Go(func() {
			for j, o := range nodes {
				if i != j {
					m.Learn(o.ID(), append([]netip.AddrPort{}, o.Underlay()...))
				}
			}
		})
	}
	learning.Wait()
	until(t, "each is connected to each, once", func() bool {
		for _, m := range nodes {
			for _, o := range nodes {
				if m != o && conns(m, o.ID()) != 1 {
					return false
				}
			}
		}
		return true
	})
	// What lost a race is still on its way out, on a busy machine for a while.
	ends := int64(n * (n - 1))
	until(t, "8 goroutines for one end of a connection", func() bool {
		return int64(runtime.NumGoroutine()-routines0) <= 8*ends
	})
	heap1, routines1 := atRest(t)
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	dials := uint64(0)
	for _, m := range nodes {
		dials += m.Stats().Dials
	}
	t.Logf("RESULT a node: %d KiB, %d goroutines; an end of a connection: %d KiB of heap, %.1f goroutines; stacks %d KiB; %d dials for %d connections",
		(heap0-heap)>>10/n, (routines0-routines)/n, (heap1-heap0)>>10/ends, float64(routines1-routines0)/float64(ends), ms.StackInuse>>10, dials, ends/2)
}
