package netns

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/wan"
)

// volume is 1 GiB where a release is judged.
var volume = volumeFlag(32 << 20)

func init() { flag.Var(&volume, "volume", "bytes that tests of integrity send each way: 32m, 1g") }

// wide is a world of two machines whose only way to each other is a wan link.
type wide struct {
	*world
	a, b *node
	link *wan.Link
}

// newWide starts both daemons and waits until they see each other.
func newWide(t *testing.T, mtu int, path wan.Path) *wide {
	t.Helper()
	w := newLink(t, mtu, path)
	w.a, w.b = w.start("a", ""), w.start("b", "")
	w.awaitMesh(w.a, w.b)
	return w
}

// newLink is newWide without the daemons. Its addresses are in no range that a token may
// choose for the overlay.
func newLink(t *testing.T, mtu int, path wan.Path) *wide {
	t.Helper()
	w := &wide{world: newWorld(t, "a", "b")}
	if err := w.lab.Partition(w.ctx, []string{"a"}, []string{"b"}); err != nil {
		t.Fatal(err)
	}
	c := wan.Config{
		A: w.end("a", "192.168.77.1/24"), B: w.end("b", "192.168.77.2/24"), AtoB: path, BtoA: path, MTU: mtu, Seed: 1,
	}
	var err error
	if w.link, err = wan.Start(w.ctx, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the link: %+v", w.link.Stats())
		}
		if err := w.link.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// end is a machine's end of a wan link.
func (w *world) end(machine, addr string) wan.End {
	w.Helper()
	pid, err := w.machine(machine).Leader()
	if err != nil {
		w.Fatal(err)
	}
	return wan.End{Netns: wan.NetnsOf(pid), Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}
}

// awaitDirect waits until packets go directly between all of the nodes.
func (w *world) awaitDirect(nodes ...*node) {
	w.Helper()
	w.eventually(60*time.Second, "packets go directly", func() error {
		for _, n := range nodes {
			if err := n.direct(); err != nil {
				return err
			}
		}
		return nil
	})
}

// direct fails unless the node's packets go directly to all peers.
func (n *node) direct() error {
	peers, err := n.client().Peers(n.w.ctx)
	if err != nil {
		return err
	}
	for _, p := range peers {
		if p.Path != datapath.KindDirect {
			return fmt.Errorf("from %s to %s packets go by %s, since %s; paths %+v", n.Name(), p.Name, p.Path, p.Why, p.Paths)
		}
	}
	if len(peers) == 0 {
		return fmt.Errorf("%s has no peers", n.Name())
	}
	return nil
}

// awaitWord waits until a helper has said "WORD REST", and returns the last REST.
func (w *world) awaitWord(d time.Duration, out *output, word string) (rest string) {
	w.Helper()
	w.eventually(d, "the helper says "+word, func() error {
		for line := range strings.Lines(out.String()) {
			if r, ok := strings.CutPrefix(line, word+" "); ok {
				rest = strings.TrimSpace(r)
			}
		}
		if rest == "" {
			return fmt.Errorf("it says: %s", out)
		}
		return nil
	})
	return rest
}

// transfer is a pair of helpers at work: one takes what the other sends.
type transfer struct {
	taker, sender *output
	ends          [2]func() error
}

// transfer starts a helper on to, and one on from that sends to it. args follow the
// address of both.
func (w *world) transfer(kind string, from, to *node, args ...string) *transfer {
	w.Helper()
	addr := netip.AddrPortFrom(to.v4(), 0).String()
	if args[0] == "IPv6" {
		addr = netip.AddrPortFrom(to.status().Addresses[1], 0).String()
	}
	args = args[1:]
	t := &transfer{}
	t.taker, t.ends[0] = w.helperOn(to.Machine, append([]string{"take-" + kind, addr}, args...)...)
	addr = w.awaitWord(20*time.Second, t.taker, "listens")
	t.sender, t.ends[1] = w.helperOn(from.Machine, append([]string{"send-" + kind, addr}, args...)...)
	return t
}

// wait waits until both have ended well.
func (t *transfer) wait() error {
	ended := make(chan error, len(t.ends))
	for i, who := range []string{"the receiver", "the sender"} {
		go func() {
			err := t.ends[i]()
			if err != nil {
				err = fmt.Errorf("%s: %w", who, err)
			}
			ended <- err
		}()
	}
	timer := time.NewTimer(time.Minute + time.Duration(volume)*time.Second/(2<<20))
	defer timer.Stop()
	for range t.ends {
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("%w; all that was said: %s%s", err, t.taker, t.sender)
			}
		case <-timer.C:
			return fmt.Errorf("it takes too long; all that was said: %s%s", t.taker, t.sender)
		}
	}
	return nil
}

// badly is an underlay on which much goes wrong.
var badly = wan.Path{Delay: time.Millisecond, Loss: 0.002, Duplicate: 0.02, Reorder: 0.02, ReorderBy: 500 * time.Microsecond}

// Whatever the underlay does to packets: what arrives is what was sent. Streams are
// whole; datagrams have their sizes and their bytes and come once.
func TestIntegrity(t *testing.T) {
	w := newWide(t, 1500, wan.Path{})
	w.awaitDirect(w.a, w.b)
	if err := w.link.Shape(badly, badly); err != nil {
		t.Fatal(err)
	}
	size := volume.String()
	t.Run("TCP", func(t *testing.T) {
		w.each(t, func(family string, from, to *node) *transfer {
			return w.transfer("bytes", from, to, family, family+from.Name(), size)
		}, func(name string, x *transfer) {
			if seconds, err := strconv.ParseFloat(w.awaitWord(time.Second, x.taker, "seconds"), 64); err == nil {
				t.Logf("RESULT %s: %.0f Mbit/s beside three others", name, float64(volume)*8/1e6/seconds)
			}
		})
	})
	t.Run("UDP", func(t *testing.T) {
		w.each(t, func(family string, from, to *node) *transfer {
			largest := map[string]int{"IPv4": datapath.DefaultMTU - 28, "IPv6": datapath.DefaultMTU - 48}[family]
			return w.transfer("datagrams", from, to, family, size, strconv.Itoa(largest))
		}, func(name string, x *transfer) { w.judge(t, name, x) })
	})
	if t.Failed() {
		return
	}
	for _, n := range []*node{w.a, w.b} {
		if err := n.direct(); err != nil {
			t.Error(err)
		}
		if n.metric(`kairos_datapath_drops_total{reason="replay"}`) == 0 {
			t.Errorf("%s has not dropped one duplicate: did the packets go directly?", n.Name())
		}
	}
	s := w.link.Stats()
	t.Logf("the link: %+v", s)
	for _, c := range []wan.Count{s.AtoB, s.BtoA} {
		if c.Lost == 0 || c.Duplicated == 0 || c.Reordered == 0 {
			t.Errorf("the link was too good: %+v", c)
		}
	}
}

// each starts transfers of both families in both directions, waits for them all, and
// has them judged.
func (w *wide) each(t *testing.T, start func(family string, from, to *node) *transfer, judge func(name string, x *transfer)) {
	t.Helper()
	all := map[string]*transfer{}
	for _, family := range []string{"IPv4", "IPv6"} {
		all[family+" from a to b"] = start(family, w.a, w.b)
		all[family+" from b to a"] = start(family, w.b, w.a)
	}
	for name, x := range all {
		if err := x.wait(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		judge(name, x)
	}
}

// judge compares what both ends of a transfer of datagrams report.
func (w *wide) judge(t *testing.T, name string, x *transfer) {
	t.Helper()
	var s sent
	var r taken
	for out, v := range map[*output]any{x.sender: &s, x.taker: &r} {
		if err := json.Unmarshal([]byte(w.awaitWord(time.Second, out, "REPORT")), v); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("RESULT %s: %d of %d datagrams arrived, %d of %d short ones, %d sent by UDP_SEGMENT",
		name, r.Datagrams, s.Datagrams, r.Short, s.Short, s.Segmented)
	if r.Wrong > 0 || r.Short > s.Short {
		t.Errorf("%s: %d of %d are wrong, %d of %d short ones arrived: %q", name, r.Wrong, r.Datagrams, r.Short, s.Short, r.Examples)
	}
	if r.Datagrams < s.Datagrams*8/10 {
		t.Errorf("%s: only %d of %d arrived", name, r.Datagrams, s.Datagrams)
	}
}

// Where the underlay takes smaller packets than usual, and nobody says so, packets of
// full size pass all the same.
func TestSmallUnderlay(t *testing.T) {
	const size = 10 << 20
	for _, c := range []struct {
		name string
		mtu  int
		path wan.Path
	}{
		{"the device takes 1280", 1280, wan.Path{}},
		{"something on the way takes 1400", 1500, wan.Path{MTU: 1400}},
		{"something on the way takes 1280", 1500, wan.Path{MTU: 1280}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWide(t, c.mtu, c.path)
			for _, n := range []*node{w.a, w.b} {
				w.deafToICMP(n.Machine)
			}
			began := time.Now()
			there := w.transfer("bytes", w.a, w.b, "IPv4", "there", strconv.Itoa(size))
			back := w.transfer("bytes", w.b, w.a, "IPv6", "back", strconv.Itoa(size))
			for _, x := range []*transfer{there, back} {
				if err := x.wait(); err != nil {
					t.Error(err)
				}
			}
			t.Logf("RESULT %d MiB each way in %.1f s", size>>20, time.Since(began).Seconds())
		})
	}
}

// deafToICMP drops all ICMP of the underlay.
func (w *world) deafToICMP(m *lab.Machine) {
	w.Helper()
	if _, err := m.Exec(w.ctx, "nft", `add table inet deaf
add chain inet deaf in { type filter hook input priority 0 ; }
add chain inet deaf out { type filter hook output priority 0 ; }
add rule inet deaf in iifname "wan0" meta l4proto { icmp, icmpv6 } drop
add rule inet deaf out oifname "wan0" meta l4proto { icmp, icmpv6 } drop`); err != nil {
		w.Fatal(err)
	}
}
