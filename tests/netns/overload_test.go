package netns

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kairos-io/kairos/tests/lab"
)

// junk is a helper: it sends 10,000 datagrams a second to ADDRESS that are not QUIC's
// and not of a member, and says "sends" once it does.
func junk(ctx context.Context, args []string) error {
	c, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var packets [1000][]byte // made before: the sender has the same processors
	for i := range packets {
		packets[i] = make([]byte, 17+i)
		rand.Read(packets[i])
		packets[i][0] &= 0x3f
		if i%2 == 0 { // the form of a packet
			copy(packets[i], []byte{1, 0, 0, 0})
		}
	}
	said := false
	for began, sent := time.Now(), 0; ctx.Err() == nil; <-tick.C {
		for ; sent < int(time.Since(began)/(100*time.Microsecond)); sent++ {
			_, _ = c.Write(packets[sent%len(packets)]) // an answer that says no is counted by the test
		}
		if sent > len(packets) && !said {
			fmt.Println("sends", args[0])
			said = true
		}
	}
	return ctx.Err()
}

// flood is a helper: it sends small datagrams to ADDRESS as fast as it can, and says
// "sends" once it does.
func flood(ctx context.Context, args []string) error {
	var g errgroup.Group
	for range 2 {
		c, err := net.Dial("udp", args[0])
		if err != nil {
			return err
		}
		defer c.Close()
		g.Go(func() error {
			for buf := make([]byte, 36); ctx.Err() == nil; { // 64 with the headers
				_, _ = c.Write(buf) // nobody listens
			}
			return ctx.Err()
		})
	}
	fmt.Println("sends", args[0])
	return g.Wait()
}

// whileHelper does f while a helper that does not end by itself says "sends".
func (w *world) whileHelper(m *lab.Machine, f func(), words ...string) {
	w.Helper()
	self, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	on := *w
	on.ctx = ctx
	out := &output{}
	_, ended := on.background(m, out, "env", helperEnv+"="+strings.Join(words, " "), self)
	w.awaitWord(20*time.Second, out, "sends")
	f()
	select {
	case <-ended:
		w.Fatalf("%s ended too early: %s", words[0], out)
	default:
	}
	cancel()
	<-ended
}

// Junk costs its receiver about as much processor time as packets of a member, hinders
// none of those, and its sender hears nothing.
func TestJunk(t *testing.T) {
	w := newWorld(t, "a", "b", "stranger")
	a, b, stranger := w.start("a", ""), w.start("b", ""), w.machine("stranger")
	w.awaitMesh(a, b)
	w.awaitDirect(a, b)
	w.countFrom(stranger, a)
	const enough = 20_000 // packets
	// cost is the processor time of a for each packet that a counter counts meanwhile.
	cost := func(from *lab.Machine, to netip.AddrPort, counter func() float64) (each, counted float64) {
		w.whileHelper(from, func() {
			packets, cpu := counter(), a.cpu()
			w.eventually(60*time.Second, "packets arrive", func() error {
				if counted = counter() - packets; counted < enough {
					return fmt.Errorf("%.0f packets are counted", counted)
				}
				return nil
			})
			each = (a.cpu() - cpu).Seconds() / counted
		}, "junk", to.String())
		return each, counted
	}
	junk := func() float64 { return a.metric(`kairos_datapath_drops_total{reason="junk"}`) }
	own, _ := cost(b.Machine, netip.AddrPortFrom(a.v4(), 9), func() float64 { return float64(a.received()) })
	each, dropped := cost(stranger, netip.AddrPortFrom(a.Addr(), 4171), junk)
	t.Logf("RESULT a packet of a member costs %.1f us, one of junk %.1f", own*1e6, each*1e6)
	if each > 2*own {
		t.Errorf("junk costs %.1f times what a member's packets do", each/own)
	}
	w.whileHelper(stranger, func() {
		x := w.transfer("bytes", b, a, "IPv4", "junk", strconv.Itoa(48<<20))
		if err := x.wait(); err != nil {
			t.Error(err)
		}
	}, "junk", a.Addr().String()+":4171")
	if dropped < 1000 {
		t.Errorf("%.0f junk packets are counted", dropped)
	}
	if err := a.direct(); err != nil {
		t.Error(err)
	}
	if n := w.counted(stranger); n != 0 {
		t.Errorf("the stranger has got %d bytes", n)
	}
	// The counter does count.
	if _, err := stranger.Exec(w.ctx, "ping", "-n", "-c", "1", "-W", "2", a.Addr().String()); err != nil || w.counted(stranger) == 0 {
		t.Errorf("a ping: %v, %d bytes counted", err, w.counted(stranger))
	}
}

// countFrom counts what a machine gets from a node, and is addressed to itself.
func (w *world) countFrom(m *lab.Machine, from *node) {
	w.Helper()
	if _, err := m.Exec(w.ctx, "nft", fmt.Sprintf(`add table inet count
add chain inet count in { type filter hook input priority -300 ; }
add rule inet count in ip saddr %s ip daddr %s counter`, from.Addr(), m.Addr())); err != nil {
		w.Fatal(err)
	}
}

// counted is the bytes that countFrom has counted.
func (w *world) counted(m *lab.Machine) int {
	w.Helper()
	out, err := m.Exec(w.ctx, "nft", "list", "chain", "inet", "count", "in")
	if err != nil {
		w.Fatal(err)
	}
	_, rest, _ := strings.Cut(out, " bytes ")
	n, err := strconv.Atoi(strings.Fields(rest + " none")[0])
	if err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	return n
}

// A TCP session outlives the daemons that carry it, on either side.
func TestSessionOutlivesDaemons(t *testing.T) {
	w := newWorld(t, "a", "b")
	nodes := w.startAll()
	w.awaitDirect(nodes...)
	const size = 24 << 20
	x := w.transfer("bytes", nodes[0], nodes[1], "IPv4", "restart", strconv.Itoa(size), "5ms")
	for i, n := range nodes {
		want := (i + 1) * 4 << 20
		w.eventually(60*time.Second, "a part has arrived", func() error {
			if got, err := strconv.Atoi(w.awaitWord(time.Minute, x.taker, "took")); err != nil || got < want {
				return fmt.Errorf("%d, %v", got, err)
			}
			return nil
		})
		before := n.status()
		n.kill()
		if got, err := strconv.Atoi(w.awaitWord(time.Minute, x.taker, "took")); err != nil || got >= size {
			t.Errorf("%d bytes had arrived when daemon %d was killed: %v", got, i+1, err)
		}
		if addrs, err := n.Exec(w.ctx, "ip", "addr", "show", "up", "dev", before.Interface); err != nil || !strings.Contains(addrs, before.Addresses[0].String()) {
			t.Errorf("the interface without its daemon: %v\n%s", err, addrs)
		}
		n.run()
		w.awaitMesh(nodes...)
	}
	if err := x.wait(); err != nil {
		t.Fatal(err)
	}
	w.awaitDirect(nodes...)
}

// Ten seconds of more small datagrams than can be carried do not make the daemons
// large, neither the one that sends them nor the one that gets them.
func TestOverload(t *testing.T) {
	const most, growth, length = 40 << 20, 1.2, 10 * time.Second
	w := newWorld(t, "a", "b")
	nodes := w.startAll()
	w.awaitDirect(nodes...)
	a, b := nodes[0], nodes[1]
	idle := map[*node]int64{a: a.rss(), b: b.rss()}
	largest := map[*node]int64{}
	var carried uint64
	w.whileHelper(a.Machine, func() {
		end := time.After(length)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		before := b.received()
		for {
			select {
			case <-tick.C:
				for _, n := range nodes {
					largest[n] = max(largest[n], n.rss())
				}
				continue
			case <-end:
			}
			break
		}
		carried = b.received() - before
	}, "flood", b.v4().String()+":9")
	for _, n := range nodes {
		t.Logf("RESULT %s: %.1f MiB idle, %.1f MiB at most with %.0f datagrams a second", n.Name(),
			float64(idle[n])/(1<<20), float64(largest[n])/(1<<20), float64(carried)/length.Seconds())
		if largest[n] > most || float64(largest[n]) > growth*float64(idle[n]) {
			t.Errorf("%s grows from %d to %d KiB, want at most %d, and at most %.1f times as much", n.Name(), idle[n]>>10, largest[n]>>10, most>>10, growth)
		}
	}
	if carried < 10_000 {
		t.Errorf("%d datagrams were carried", carried)
	}
	if err := a.ping(b.v4().String()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// received is how many packets the node has taken from its peers.
func (n *node) received() (packets uint64) {
	n.w.Helper()
	peers, err := n.client().Peers(n.w.ctx)
	if err != nil {
		n.w.Fatal(err)
	}
	for _, p := range peers {
		packets += p.RxPackets
	}
	return packets
}
