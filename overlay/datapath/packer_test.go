package datapath

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/kairos-io/kairos/overlay/offload"
	"github.com/kairos-io/kairos/overlay/session"
)

// packed is a packer on the way to a member, and what it sends.
type packed struct {
	*packer
	t         *testing.T
	to        *member
	count     *counters
	datagrams [][]byte
	fail      int // datagram whose sending fails; -1: none
}

func (p *packed) Send(packets [][]byte) (int, error) {
	for i, d := range packets {
		if len(p.datagrams) == p.fail {
			return i, errors.New("no way")
		}
		p.datagrams = append(p.datagrams, bytes.Clone(d))
	}
	return len(packets), nil
}

func (*packed) Offer([]byte) error { return nil }

// pack runs f with a packer whose path takes packets of 1400 bytes.
func pack(t *testing.T, f func(*packed)) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir(t)
		a.wantKind(KindDirect)
		one, two := a.members[0], a.members[1]
		k := newPacker()
		p := &packed{packer: &k, t: t, to: two, fail: -1}
		mine := &account{id: two.id} // the air's packets are not counted here
		mine.count.total = &one.dp.drops
		p.count = &mine.count
		e := &endpoint{peer: newPeer(one.dp, mine), out: p}
		e.mtu.Store(1400)
		k.begin(e, one.dp.peer(two.id).session.Sealing(one.dp.now()))
		f(p)
	})
}

// opened are the packets in what was sent, by datagram.
func (p *packed) opened() (all [][]arrived) {
	p.t.Helper()
	for _, d := range p.datagrams {
		flags := session.Flags(d)
		var r receiver
		r.open.reset()
		if p.to.dp.openNext(&r, nil, d) == nil {
			p.t.Fatal("a datagram is not opened")
		}
		payload := r.open.keep()
		other := &peer{account: &account{}}
		other.account.count.total = new(drops)
		if other.unpack(&r, payload, flags); len(payload) == 0 || other.account.count.drops[DropBadFrame].Load() > 0 {
			p.t.Fatal("a datagram is not opened")
		}
		if len(payload) > 1400 {
			p.t.Errorf("%d bytes in a datagram", len(payload))
		}
		all = append(all, r.pkts)
	}
	return all
}

// given is packets to be packed: of a size each, Partial where that is negative.
type given []int

func (g given) add(p *packed) (ok int) {
	for i, size := range g {
		flags := byte(0)
		if size < 0 {
			size, flags = -size, flagPartial
		}
		if !p.broken() && p.add(of(1, i, size), flags) {
			ok++
		}
	}
	return ok
}

// Datagrams hold whole packets, in order; small ones that come together share one.
func TestPacker(t *testing.T) {
	small := slices.Repeat(given{100}, 100)
	for name, c := range map[string]struct {
		in   given
		want []int // packets in each datagram
	}{
		"nothing":                       {nil, nil},
		"one":                           {given{1400}, []int{1}},
		"a small one":                   {given{28}, []int{1}},
		"small ones together":           {given{100, 200, 300}, []int{3}},
		"full to the byte":              {given{700, 700, 28}, []int{2, 1}},
		"three to the byte":             {given{700, 672, 28}, []int{3}},
		"a byte too much":               {given{700, 673, 28}, []int{2, 1}},
		"more than half is alone":       {given{701, 701, 100}, []int{1, 1, 1}},
		"large ones end what waits":     {given{100, 100, 1400, 100}, []int{2, 1, 1}},
		"partial ones together":         {given{-100, -100}, []int{2}},
		"partial and whole never":       {given{-100, 100, 100, -100}, []int{1, 2, 1}},
		"large ones of either":          {given{-1400, 1400, -1400}, []int{1, 1, 1}},
		"a whole one between large":     {given{-1400, 100, -1400}, []int{1, 1, 1}},
		"100 small ones":                {small, []int{14, 14, 14, 14, 14, 14, 14, 2}},
		"more than one call takes":      {slices.Repeat(given{1400}, 70), slices.Repeat([]int{1}, 70)},
		"more datagrams than one takes": {slices.Repeat(given{-28, 28}, 70), slices.Repeat([]int{1}, 140)},
	} {
		t.Run(name, func(t *testing.T) {
			pack(t, func(p *packed) {
				if ok := c.in.add(p); ok != len(c.in) {
					t.Fatalf("%d of %d packets are taken", ok, len(c.in))
				}
				if p.flush(); !p.broken() {
					t.Error("it has not ended")
				}
				var counts []int
				next, bytes := 0, 0
				for _, pkts := range p.opened() {
					counts = append(counts, len(pkts))
					for _, pkt := range pkts {
						size, shape := c.in[next], offload.Whole
						if size < 0 {
							size, shape = -size, offload.Partial
						}
						if numberOf(pkt.Data) != next || len(pkt.Data) != size || pkt.Shape != shape {
							t.Fatalf("packet %d of %d bytes and shape %d, want %d of %d and %d", numberOf(pkt.Data), len(pkt.Data), pkt.Shape, next, size, shape)
						}
						next++
						bytes += size
					}
				}
				if !slices.Equal(counts, c.want) || next != len(c.in) {
					t.Errorf("datagrams of %v packets, want %v", counts, c.want)
				}
				if n, b := p.count.txPackets.Load(), p.count.txBytes.Load(); n != uint64(next) || b != uint64(bytes) {
					t.Errorf("%d packets of %d bytes are counted, want %d of %d", n, b, next, bytes)
				}
			})
		})
	}
}

// What a Send that fails leaves is lost, counted, and not sent later.
func TestPackerCountsWhatIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		in   given
		fail int
	}{
		"the first":            {given{1400, 1400, 1400}, 0},
		"the second":           {given{1400, 1400, 1400}, 1},
		"small ones":           {given{100, 100, 100}, 0},
		"large and small ones": {given{1400, 100, 100, 1400, 100}, 2},
		"of a full call":       {slices.Repeat(given{1400}, 45), 20},
		"behind a full call":   {slices.Repeat(given{1400}, 46), 20},
		"small ones behind it": {slices.Repeat(given{-100, 100}, 33), 20},
		"what waits behind it": {append(slices.Repeat(given{1400}, 45), 350, 350), 20},
	} {
		t.Run(name, func(t *testing.T) {
			pack(t, func(p *packed) {
				p.fail = c.fail
				c.in.add(p)
				if !p.broken() {
					p.flush()
				}
				got := 0
				for _, pkts := range p.opened() {
					got += len(pkts)
				}
				sent, lost := p.count.txPackets.Load(), p.count.drops[DropLinkLost].Load()
				if !p.broken() || sent != uint64(got) || sent+lost != uint64(len(c.in)) {
					t.Errorf("%d of %d packets arrive, %d are counted as sent and %d as lost", got, len(c.in), sent, lost)
				}
			})
		})
	}
}

// Whatever a member seals, what is taken out of it is packets that end where they
// say, and all of it up to the first that does not.
func FuzzUnpack(f *testing.F) {
	two := append(ipv4(set(0)), ipv6(set(0))...)
	f.Add(two, byte(0))
	f.Add(two, byte(flagPartial))
	f.Add(two[:150], byte(0))
	f.Add(append(bytes.Clone(two), 0x45), byte(0))
	f.Add(ipv4(set(2, 0, 0)), byte(0))
	f.Add(ipv4(set(2, 0, 5)), byte(0))
	f.Add(ipv4(set(2, 0xff, 0xff)), byte(1))
	f.Fuzz(func(t *testing.T, payload []byte, flags byte) {
		var d Datapath
		var r receiver
		p := &peer{account: &account{}}
		p.account.count.total = &d.drops
		flags &= flagPartial
		p.unpack(&r, payload, flags)
		at, bytes := 0, 0
		for _, pkt := range r.pkts {
			for at < len(payload) && &pkt.Data[0] != &payload[at] {
				at++ // over bad ones
			}
			n := len(pkt.Data)
			if at == len(payload) || n != size(pkt.Data) || cap(pkt.Data) != n {
				t.Fatalf("packet at %d has %d bytes", at, n)
			}
			if partial := flags&flagPartial != 0; partial != (pkt.Shape == offload.Partial) || !partial && pkt.Shape != offload.Whole {
				t.Fatalf("shape %d", pkt.Shape)
			}
			at, bytes = at+n, bytes+n
		}
		if bad := d.drops[DropBadFrame].Load(); (bad == 0) != (bytes == len(payload)) {
			t.Fatalf("%d of %d bytes are packets, %d are bad", bytes, len(payload), bad)
		}
	})
}
