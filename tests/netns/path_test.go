package netns

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/wan"
)

// pinging is a ping that goes on, many times a second.
type pinging struct {
	w     *world
	cmd   *exec.Cmd
	ended chan struct{}
	out   *output
}

const pingEvery = 20 * time.Millisecond

// keepPinging starts one, and waits until it is answered.
func (n *node) keepPinging(target string, args ...string) *pinging {
	n.w.Helper()
	p := &pinging{w: n.w, out: &output{}}
	all := append([]string{"ping", "-n", "-D", "-i", fmt.Sprint(pingEvery.Seconds())}, args...)
	p.cmd, p.ended = n.background(p.out, append(all, target)...)
	n.w.eventually(20*time.Second, target+" answers", func() error {
		if len(p.replies()) < 10 {
			return fmt.Errorf("ping says: %s", p.out)
		}
		return nil
	})
	return p
}

// stop ends it.
func (p *pinging) stop() {
	if err := lab.Signal(p.cmd, syscall.SIGKILL); err == nil {
		<-p.ended
	}
}

// lost is how many of those that were answered or passed over have no reply.
func (p *pinging) lost() int {
	all := reply.FindAllStringSubmatch(p.out.String(), -1)
	if len(all) == 0 {
		return 0
	}
	last, _ := strconv.Atoi(all[len(all)-1][2]) // digits
	return last - len(all)
}

// pressure is what the kernel says of how long something on this machine has waited for
// processors, memory and disk since it was started.
func pressure() string {
	var out []string
	for _, what := range []string{"cpu", "memory", "io"} {
		text, err := os.ReadFile("/proc/pressure/" + what)
		if err != nil {
			return err.Error()
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			out = append(out, what+" "+f[0]+" "+strings.TrimPrefix(f[len(f)-1], "total=")+" us")
		}
	}
	return strings.Join(out, ", ")
}

var reply = regexp.MustCompile(`(?m)^\[(\d+\.\d+)\] .* icmp_seq=(\d+) `)

// replies is when each of them came.
func (p *pinging) replies() []float64 {
	var at []float64
	for _, m := range reply.FindAllStringSubmatch(p.out.String(), -1) {
		if t, err := strconv.ParseFloat(m[1], 64); err == nil {
			at = append(at, t)
		}
	}
	return at
}

// gap waits for the time and returns the longest time without a reply since began.
func (p *pinging) gap(began time.Time, wait time.Duration) time.Duration {
	timer := time.NewTimer(time.Until(began.Add(wait)))
	defer timer.Stop()
	<-timer.C
	from := float64(began.UnixNano()) / 1e9
	last, longest := from, 0.0
	for _, at := range append(p.replies(), float64(time.Now().UnixNano())/1e9) {
		if at > from {
			longest, last = max(longest, at-last), at
		}
	}
	return time.Duration(longest * 1e9).Round(time.Millisecond)
}

// wantGap has something happen while both nodes ping each other, and bounds for how long
// they get no answer. What keeps a machine from answering itself, which is that others use
// the processors, is not counted.
func (w *wide) wantGap(what string, most time.Duration, happen func(), args ...string) {
	w.Helper()
	there := w.a.keepPinging(w.b.v4().String(), args...)
	back := w.b.keepPinging(w.a.v4().String(), args...)
	itself := w.a.keepPinging("127.0.0.1")
	defer there.stop()
	defer back.stop()
	defer itself.stop()
	happen()
	began, before := time.Now(), pressure()
	wait := most + 3*time.Second
	stalled := itself.gap(began, wait)
	for name, p := range map[string]*pinging{"a pings b": there, "b pings a": back} {
		gap := p.gap(began, wait)
		w.Logf("RESULT %s, %s: %v without an answer (to itself: %v)", what, name, gap, stalled)
		if gap > most+stalled {
			w.Errorf("%s, %s: %v without an answer, at most %v and the %v of its own; %d replies never came\nwaited for before: %s\nand afterwards:    %s",
				what, name, gap, most, stalled, p.lost(), before, pressure())
		}
	}
}

// must runs a command on a machine.
func (n *node) must(args ...string) {
	n.w.Helper()
	if out, err := n.Exec(n.w.ctx, args...); err != nil {
		n.w.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// paths are all paths of a node to its only peer, the chosen one first.
func (n *node) paths() []api.Path {
	n.w.Helper()
	peers, err := n.client().Peers(n.w.ctx)
	if err != nil || len(peers) != 1 {
		n.w.Fatalf("%s has the peers %+v: %v", n.Name(), peers, err)
	}
	return peers[0].Paths
}

// A machine gets another address, and keeps its packets.
func TestRoaming(t *testing.T) {
	w := newWide(t, 1500, wan.Path{Delay: 2 * time.Millisecond})
	w.awaitDirect(w.a, w.b)
	w.wantGap("roaming", time.Second, func() {
		w.a.must("sh", "-c", `printf 'addr del 192.168.77.1/24 dev wan0\naddr add 192.168.77.3/24 dev wan0\n' | ip -batch -`)
	})
	if p := w.b.paths()[0]; p.Kind != "direct" || !strings.HasPrefix(p.Remote, "192.168.77.3:") {
		t.Errorf("packets go by %+v", p)
	}
	if p := w.a.paths()[0]; p.Kind != "direct" || p.Local.String() != "192.168.77.3" {
		t.Errorf("packets go by %+v", p)
	}
}

// translate has a machine's port be another one outside, as a translator would.
func (n *node) translate(port int) {
	n.w.Helper()
	n.must("nft", fmt.Sprintf(`table ip nat2
delete table ip nat2
table ip nat2 {
	chain out { type filter hook output priority -300; oifname "wan0" udp sport 4171 notrack udp sport set %d; }
	chain in { type filter hook prerouting priority -300; iifname "wan0" udp dport %d notrack udp dport set 4171 accept; iifname "wan0" udp dport 4171 drop; }
}`, port, port))
}

// A translator forgets its mapping and makes another one: the other side follows.
func TestRebinding(t *testing.T) {
	w := newLink(t, 1500, wan.Path{Delay: 2 * time.Millisecond})
	w.b = w.start("b", "  overlay:\n    mdns: false\n")
	w.a = w.start("a", "  overlay:\n    mdns: false\n    peers: [\"192.168.77.2:4171\"]\n")
	w.a.translate(5000)
	w.awaitMesh(w.a, w.b)
	w.awaitDirect(w.a, w.b)
	w.wantGap("rebinding", time.Second, func() { w.a.translate(5001) })
	if p := w.b.paths()[0]; p.Kind != "direct" || p.Remote != "192.168.77.1:5001" {
		t.Errorf("packets go by %+v", p)
	}
}

// A machine with two addresses answers from the one that it was spoken to at: to
// whoever speaks to the second one, what comes from the first is a stranger's.
func TestMultiHomedSource(t *testing.T) {
	w := newLink(t, 1500, wan.Path{})
	b := w.machine("b")
	if out, err := b.Exec(w.ctx, "ip", "addr", "add", "192.168.77.9/24", "dev", "wan0"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := w.machine("a").Exec(w.ctx, "nft", `add table inet strict
add chain inet strict in { type filter hook input priority 0 ; }
add rule inet strict in iifname "wan0" ip saddr 192.168.77.2 udp sport 4171 drop`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.b = w.start("b", "  overlay:\n    mdns: false\n")
	w.a = w.start("a", "  overlay:\n    mdns: false\n    peers: [\"192.168.77.9:4171\"]\n")
	w.awaitMesh(w.a, w.b)
	w.awaitDirect(w.a, w.b)
	if p := w.a.paths()[0]; p.Remote != "192.168.77.9:4171" {
		t.Errorf("packets of a go by %+v", p)
	}
	if p := w.b.paths()[0]; p.Local.String() != "192.168.77.9" {
		t.Errorf("packets of b go by %+v", p)
	}
}

// Datagrams of packets end, while the connection lives: packets take the stream.
func TestDeadPath(t *testing.T) {
	w := newWide(t, 1500, wan.Path{Delay: 2 * time.Millisecond})
	w.awaitDirect(w.a, w.b)
	w.wantGap("dead path", 2*time.Second, func() {
		w.b.must("nft", `add table inet dead
add chain inet dead in { type filter hook input priority 0 ; }
add chain inet dead out { type filter hook output priority 0 ; }
add rule inet dead in iifname "wan0" udp dport 4171 @th,64,8 0x01 drop
add rule inet dead out oifname "wan0" udp sport 4171 @th,64,8 0x01 drop`)
	})
	if p := w.a.paths()[0]; p.Kind == "direct" {
		t.Errorf("packets go by %+v", p)
	}
	w.wantGap("it comes back", time.Second, func() { w.b.must("nft", "delete", "table", "inet", "dead") })
	w.awaitDirect(w.a, w.b)
}

// Two machines are joined by two cables, and have met by one of them. That one falls
// silent: packets take the other one, whether the kernel says a word or not.
func TestSilentCable(t *testing.T) {
	for name, rules := range map[string]string{
		"silent":  `chain in { type filter hook input priority 0; iifname "wan0" drop; }`,
		"both":    "chain in { type filter hook input priority 0; iifname \"wan0\" drop; }\nchain out { type filter hook output priority 0; oifname \"wan0\" drop; }",
		"refused": `chain out { type filter hook output priority 0; oifname "wan0" drop; }`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newLink(t, 1500, wan.Path{Delay: 2 * time.Millisecond})
			w.joinAgain("a", "b")
			w.b = w.start("b", "  overlay:\n    mdns: false\n")
			w.a = w.start("a", "  overlay:\n    mdns: false\n    peers: [\"192.168.77.2:4171\"]\n")
			w.awaitMesh(w.a, w.b)
			w.awaitDirect(w.a, w.b)
			if p := w.a.paths()[0]; p.Local.String() != "192.168.77.1" {
				t.Fatalf("they have met by %+v", p)
			}
			w.wantGap(name+" cable", 2*time.Second, func() {
				for _, n := range []*node{w.a, w.b} {
					n.must("nft", "table inet cut {\n"+rules+"\n}")
				}
			})
			for i, n := range []*node{w.a, w.b} {
				if p := n.paths()[0]; p.Kind != "direct" || p.Local != secondCable[i].Addr() {
					t.Errorf("packets of %s go by %+v", n.Name(), p)
				}
			}
		})
	}
}

// secondCable is the addresses at the ends of what joinAgain makes.
var secondCable = [2]netip.Prefix{netip.MustParsePrefix("192.168.78.1/24"), netip.MustParsePrefix("192.168.78.2/24")}

// joinAgain joins two machines by a cable wan1.
func (w *world) joinAgain(a, b string) {
	w.Helper()
	var ends [2]string
	for i, name := range []string{a, b} {
		pid, err := w.machine(name).Leader()
		if err != nil {
			w.Fatal(err)
		}
		ends[i] = strconv.Itoa(pid)
	}
	cmd := exec.CommandContext(w.ctx, "ip", "link", "add", "wan1", "netns", ends[0], "type", "veth", "peer", "name", "wan1", "netns", ends[1])
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("join %s and %s: %v: %s", a, b, err, out)
	}
	for i, name := range []string{a, b} {
		commands := fmt.Sprintf(`addr add %s dev wan1\nlink set wan1 up\n`, secondCable[i])
		if out, err := w.machine(name).Exec(w.ctx, "sh", "-c", "printf '"+commands+"' | ip -batch -"); err != nil {
			w.Fatalf("%v: %s", err, out)
		}
	}
}

// Something on the way starts to lose what is larger than 1280 bytes, and says nothing.
func TestPathShrinksTo1280(t *testing.T) {
	w := newWide(t, 1500, wan.Path{Delay: 2 * time.Millisecond})
	w.awaitDirect(w.a, w.b)
	narrow := wan.Path{Delay: 2 * time.Millisecond, MTU: 1280}
	w.wantGap("path of 1280", 5*time.Second, func() {
		if err := w.link.Shape(narrow, narrow); err != nil {
			t.Fatal(err)
		}
	}, "-s", "1252") // an IP packet of 1280 bytes, without our headers
	for _, n := range []*node{w.a, w.b} {
		if err := n.direct(); err != nil {
			t.Error(err)
		}
	}
}
