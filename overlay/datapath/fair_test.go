package datapath

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/offload"
)

// queues is a fair with the test's own view of it.
type queues struct {
	*fair
	t     testing.TB
	drops []int // numbers of the packets given up, in order
}

func newQueues(t testing.TB) *queues {
	q := &queues{t: t}
	q.fair = newFair(1<<16, 1, func(p offload.Packet) { q.drops = append(q.drops, numberOf(p.Data)) })
	return q
}

// of makes a datagram of flow with a number behind its ports.
func of(flow, number, size int) []byte {
	pkt := packet(netip.AddrFrom4([4]byte{10, 1, 0, 1}), netip.AddrFrom4([4]byte{10, 1, 0, 2}), 0, size)
	binary.BigEndian.PutUint16(pkt[20:], uint16(flow))
	binary.BigEndian.PutUint16(pkt[24:], uint16(len(pkt)-minIPv4)) // as UDP has it
	binary.BigEndian.PutUint16(pkt[26:], uint16(number))
	return pkt
}

func flowOf(pkt []byte) int   { return int(binary.BigEndian.Uint16(pkt[20:])) }
func numberOf(pkt []byte) int { return int(binary.BigEndian.Uint16(pkt[26:])) }

// put queues a packet, and reports whether there was a slot for it.
func (q *queues) put(pkt []byte, now time.Duration) bool {
	s := q.room()
	if s == nil {
		return false
	}
	s.pkt = offload.Packet{Data: s.room[:copy(s.room, pkt)]}
	q.push(s, now)
	return true
}

// get takes the packet whose turn it is: nil if there is none.
func (q *queues) get(now time.Duration) []byte {
	s := q.pop(now)
	if s == nil {
		return nil
	}
	pkt := slices.Clone(s.pkt.Data)
	q.release(s)
	return pkt
}

// apart returns flows, none of which shares its queue with another.
func (q *queues) apart(count int) []int {
	var flows []int
	taken := map[uint32]bool{}
	for flow := 1; len(flows) < count; flow++ {
		if h := hash(of(flow, 0, 100), q.seed) % fairFlows; !taken[h] {
			taken[h] = true
			flows = append(flows, flow)
		}
	}
	return flows
}

// slots counts what is free; every slot is there once.
func (q *queues) wantAllFree() {
	q.t.Helper()
	seen := map[*slot]bool{}
	for s := q.free; s != nil; s = s.next {
		if seen[s] {
			q.t.Fatal("a slot was released twice")
		}
		seen[s] = true
		if len(s.pkt.Data) > 0 {
			q.t.Error("a free slot keeps its packet")
		}
	}
	if len(seen) != fairSlots || q.bytes != 0 {
		q.t.Fatalf("%d of %d slots are free, %d bytes wait", len(seen), fairSlots, q.bytes)
	}
}

func TestFairKeepsOrderWithinAFlow(t *testing.T) {
	q := newQueues(t)
	flows := q.apart(3)
	for n := range fairSlots {
		if !q.put(of(flows[n%3], n, 100+n), 0) {
			t.Fatalf("no slot for packet %d", n)
		}
	}
	last := map[int]int{}
	for pkt := q.get(0); pkt != nil; pkt = q.get(0) {
		flow, n := flowOf(pkt), numberOf(pkt)
		if before, ok := last[flow]; ok && n != before+3 {
			t.Errorf("flow %d: packet %d comes after %d", flow, n, before)
		}
		last[flow] = n
	}
	if len(last) != 3 || len(q.drops) != 0 {
		t.Errorf("%d flows, given up %v", len(last), q.drops)
	}
	q.wantAllFree()
}

// Turns are of bytes: who sends large packets gets as much as who sends small ones.
func TestFairFlowsTakeTurns(t *testing.T) {
	for name, sizes := range map[string][2]int{
		"alike":           {1400, 1400},
		"large and small": {8000, 1000},
		"larger ones":     {30_000, 5000},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueues(t)
			flows := q.apart(2)
			sent, waiting := [2]int{}, [2]int{}
			for range 2000 {
				for i, flow := range flows { // neither queue is ever empty
					for waiting[i] < 4 && q.put(of(flow, i, sizes[i]), 0) {
						waiting[i]++
					}
				}
				i := slices.Index(flows, flowOf(q.get(0)))
				waiting[i]--
				sent[i] += sizes[i]
				if d := sent[0] - sent[1]; max(d, -d) > 2*(fairTurn+max(sizes[0], sizes[1])) {
					t.Fatalf("%d and %d bytes", sent[0], sent[1])
				}
			}
		})
	}
}

// A flow that sends a packet now and then does not wait for those that stand.
func TestFairSparseFlowGoesFirst(t *testing.T) {
	q := newQueues(t)
	flows := q.apart(3)
	for n := range 40 {
		q.put(of(flows[n&1], n, 9000), 0)
	}
	for range 4 {
		q.get(0) // both have had a turn
	}
	for n := range 10 {
		q.put(of(flows[2], 1000+n, 100), 0)
		if got := flowOf(q.get(0)); got != flows[2] {
			t.Fatalf("packet %d waits for flow %d", n, got)
		}
		if n%2 == 1 {
			q.get(0)
			q.get(0)
		}
		for q.flows[hash(of(flows[2], 0, 100), q.seed)%fairFlows].listed { // until it counts as new again
			q.get(0)
			q.put(of(flows[0], 0, 9000), 0)
			q.put(of(flows[1], 0, 9000), 0)
		}
	}
}

// A flow whose queue was empty for a moment is not new again: it would always go first.
func TestFairSparseFlowDoesNotStarveOthers(t *testing.T) {
	q := newQueues(t)
	flows := q.apart(2)
	standing, waiting, sent := 0, false, map[int]int{}
	for range 1000 {
		for ; standing < 10; standing++ {
			q.put(of(flows[0], 0, 9000), 0)
		}
		pkt := q.get(0)
		sent[flowOf(pkt)] += len(pkt)
		if flowOf(pkt) == flows[1] {
			waiting = false
			continue
		}
		if standing--; !waiting { // what was sent before is answered, as it were
			waiting = q.put(of(flows[1], 0, 16_000), 0)
		}
	}
	if a, b := sent[flows[0]], sent[flows[1]]; max(a-b, b-a) > 3*fairTurn {
		t.Errorf("%d bytes of the flow that stands, %d of the other", a, b)
	}
}

// Too many bytes: the flow with the most of them loses what has waited longest.
func TestFairLimitInBytes(t *testing.T) {
	q := newQueues(t)
	flows := q.apart(3)
	q.put(of(flows[0], 1, 50_000), 0)
	q.put(of(flows[1], 2, 60_000), 0)
	q.put(of(flows[1], 3, 60_000), 0)
	total, n := 170_000, 100
	for ; total+65_000 <= fairBytes; n++ {
		q.put(of(flows[2], n, 65_000), 0)
		total += 65_000
	}
	if len(q.drops) != 0 {
		t.Fatalf("given up at %d bytes: %v", total, q.drops)
	}
	for i := range 5 {
		q.put(of(flows[2], n+i, 65_000), 0)
	}
	if want := []int{100, 101, 102, 103, 104}; !slices.Equal(q.drops, want) {
		t.Errorf("given up %v, want %v", q.drops, want)
	}
	if q.bytes > fairBytes {
		t.Errorf("%d bytes wait", q.bytes)
	}
	first := map[int]int{}
	for pkt := q.get(0); pkt != nil; pkt = q.get(0) {
		if _, ok := first[flowOf(pkt)]; !ok {
			first[flowOf(pkt)] = numberOf(pkt)
		}
	}
	if want := fmt.Sprint(map[int]int{flows[0]: 1, flows[1]: 2, flows[2]: 105}); fmt.Sprint(first) != want {
		t.Errorf("the queues begin with %v, want %v", first, want)
	}
	q.wantAllFree()
}

func TestFairSlotsRunOut(t *testing.T) {
	q := newQueues(t)
	for n := range fairSlots {
		if !q.put(of(n, n, 100), 0) {
			t.Fatalf("no slot for packet %d", n)
		}
	}
	if q.put(of(1, 1, 100), 0) || q.room() != nil {
		t.Error("there are more slots than there are")
	}
	q.get(0)
	if !q.put(of(1, 1, 100), 0) || q.room() != nil {
		t.Error("a slot that was released is one, and no more")
	}
}

// A queue that stands loses packets after its time of grace, more and more often,
// and none as soon as it is short (RFC 8289).
func TestFairStandingQueue(t *testing.T) {
	const ms = time.Millisecond
	q := newQueues(t)
	var times []time.Duration // of drops
	now := time.Duration(0)
	run := func(until time.Duration, waiting int) {
		for n := 0; now < until; n++ {
			for held := q.bytes / 1000; held < waiting; held++ {
				q.put(of(1, n, 1000), now)
			}
			before := len(q.drops)
			q.get(now)
			for range len(q.drops) - before {
				times = append(times, now)
			}
			now += ms
		}
	}
	run(1*ms, 30)
	run(104*ms, 30)
	if len(q.drops) != 0 {
		t.Fatalf("given up within the time of grace: at %v", times)
	}
	run(2000*ms, 30) // a packet waits for 30 ms
	if len(times) < 20 || times[0] > 130*ms {
		t.Fatalf("%d given up, the first at %v", len(times), times[:min(1, len(times))])
	}
	for i, at := range times[1:] {
		gap := at - times[i]
		want := time.Duration(float64(codelGrace) / sqrt(i+1))
		if gap < want-2*ms || gap > want+2*ms {
			t.Errorf("drop %d comes %v after the one before, want %v", i+1, gap, want)
		}
	}
	times = nil
	run(2050*ms, 2)
	times = nil
	run(3000*ms, 2) // 2 ms
	if len(times) != 0 {
		t.Errorf("a short queue loses packets at %v", times)
	}
	run(3090*ms, 30)
	if len(times) != 0 {
		t.Errorf("a queue that begins to stand loses packets at %v", times)
	}
}

func sqrt(n int) float64 {
	x := float64(n)
	for range 30 {
		x = (x + float64(n)/x) / 2
	}
	return x
}

// The last packet of a queue is never given up: nothing waits for it.
func TestFairKeepsTheLastPacket(t *testing.T) {
	q := newQueues(t)
	for n := range 100 {
		now := time.Duration(n) * time.Second
		q.put(of(1, n, 1000), now)
		if q.get(now+500*time.Millisecond) == nil {
			t.Fatalf("packet %d is given up", n)
		}
	}
}

// Every slot is somewhere exactly once, whatever happens.
func TestFairLosesNoSlot(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	q := newQueues(t)
	in, out := 0, 0
	now := time.Duration(0)
	for range 20_000 {
		now += time.Duration(r.IntN(3000)) * time.Microsecond
		switch r.IntN(20) {
		case 0:
			for q.put(of(r.IntN(100), in, 28+r.IntN(65_000)), now) {
				in++
			}
		case 1:
			for q.get(now) != nil {
				out++
			}
		case 2:
			if s := q.room(); s != nil {
				q.release(s) // what was read was no packet
			}
		case 3, 4, 5, 6, 7, 8, 9, 10:
			if q.put(of(r.IntN(100), in, 28+r.IntN(3000)), now) {
				in++
			}
		default:
			if q.get(now) != nil {
				out++
			}
		}
	}
	for q.get(now) != nil {
		out++
	}
	if in != out+len(q.drops) || len(q.drops) == 0 {
		t.Errorf("%d packets come, %d go and %d are given up", in, out, len(q.drops))
	}
	q.wantAllFree()
}

func TestFairDoesNotAllocate(t *testing.T) {
	q := newFair(2000, 1, func(offload.Packet) {})
	pkts := [][]byte{of(1, 0, 1000), of(2, 0, 1000), of(3, 0, 100)}
	now := time.Duration(0)
	if n := testing.AllocsPerRun(100, func() {
		for i := range 60 {
			s := q.room()
			s.pkt = offload.Packet{Data: s.room[:copy(s.room, pkts[i%3])]}
			q.push(s, now)
		}
		now += 20 * time.Millisecond // some are given up
		for s := q.pop(now); s != nil; s = q.pop(now) {
			q.release(s)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
