package netns

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/tests/lab"
)

// helperOn starts one of this binary's helpers on a machine; wait waits for its end.
func (w *world) helperOn(m *lab.Machine, words ...string) (out *output, wait func() error) {
	w.Helper()
	self, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	out = &output{}
	cmd, ended := w.background(m, out, "env", helperEnv+"="+strings.Join(words, " "), self)
	return out, func() error {
		<-ended
		if !cmd.ProcessState.Success() {
			return fmt.Errorf("%v: %s", cmd.ProcessState, out)
		}
		return nil
	}
}

// metric is the value of one line of the node's metrics.
func (n *node) metric(name string) float64 {
	n.w.Helper()
	text, err := n.get("http://127.0.0.1:8080/metrics", "")
	if err != nil {
		n.w.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				n.w.Fatal(err)
			}
			return v
		}
	}
	n.w.Fatalf("no metric %s in\n%s", name, text)
	return 0
}

// get fetches a URL from inside the node's machine; host replaces the Host header.
func (n *node) get(url, host string) (string, error) { return n.Get(n.w.ctx, url, host) }

// pid is the daemon's process.
func (n *node) pid() int {
	n.w.Helper()
	pid, err := lab.Inner(n.cmd)
	if err != nil {
		n.w.Fatal(err)
	}
	return pid
}

// cpu is the processor time that the daemon's threads have taken, by schedstat, which
// counts nanoseconds.
func (n *node) cpu() (sum time.Duration) {
	n.w.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", n.pid()))
	if err != nil || len(threads) == 0 {
		n.w.Fatalf("no threads of %s: %v", n.Name(), err)
	}
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if err != nil {
			n.w.Fatal(err)
		}
		ran, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			n.w.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// rss is the daemon's resident memory in bytes.
func (n *node) rss() int64 {
	n.w.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid()))
	if err != nil {
		n.w.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		n.w.Fatal(err)
	}
	return kib << 10
}

// A thousand strangers with wrong tokens are refused and counted, cost no
// memory to speak of, and keep no member out.
func TestWrongTokenIsRefusedAndCounted(t *testing.T) {
	w := newWorld(t, "a", "b", "stranger")
	a := w.start("a", "")
	underlay := a.Addr().String() + ":4171"
	attack := func(count int) {
		t.Helper()
		_, wait := w.helperOn(w.machine("stranger"), "strangers", underlay, strconv.Itoa(count))
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
	attack(100) // buffers and pools have their size after these
	before := a.rss()
	attack(1000)
	var refused float64
	// The last strangers may hear it before it is counted.
	w.eventually(20*time.Second, "all strangers are counted", func() error {
		refused = 0
		for _, outcome := range []string{"refused_proof", "refused_limit", "refused_timeout"} {
			refused += a.metric(`kairos_admission_total{outcome="` + outcome + `"}`)
		}
		if refused < 1100 {
			return fmt.Errorf("%.0f refused connections are counted, want at least 1,100", refused)
		}
		return nil
	})
	grown := a.rss() - before
	t.Logf("RESULT refused %.0f connections of 1,100 strangers, memory %+d KiB", refused, grown>>10)
	if admitted := a.metric(`kairos_admission_total{outcome="admitted"}`); admitted != 0 {
		t.Errorf("%.0f were admitted", admitted)
	}
	if grown > 8<<20 {
		t.Errorf("memory grew by %d KiB over 1,000 refused tries", grown>>10)
	}
	b := w.start("b", "")
	w.awaitMesh(a, b)
}

// Packets that claim another member's source are dropped by the receiver and
// counted, whoever sends them, and whichever way.
func TestSpoofedSourceIsDropped(t *testing.T) {
	for _, liar := range []string{"spoof", "spoof-directly"} {
		t.Run(liar, func(t *testing.T) { testSpoofed(t, liar) })
	}
}

func testSpoofed(t *testing.T, liar string) {
	w := newWorld(t, "a", "b", "mallory")
	a, b := w.start("a", ""), w.start("b", "")
	w.awaitMesh(a, b)
	var listener net.PacketConn
	err := a.InNet(func() (err error) {
		listener, err = net.ListenPacket("udp4", a.v4().String()+":9")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const spoofed = `kairos_datapath_drops_total{reason="spoofed"}`
	const count = 10_000
	out, _ := w.helperOn(w.machine("mallory"), liar, w.token, a.Addr().String()+":4171", b.v4().String(), a.v4().String(), strconv.Itoa(count))
	w.eventually(20*time.Second, "the spoofed packets are counted", func() error {
		if got := a.metric(spoofed); got != count {
			return fmt.Errorf("%.0f drops as spoofed, want %d; the sender says: %s", got, count, out)
		}
		return nil
	})
	// The same packet from the member whose address it is does arrive, and is the first.
	err = b.InNet(func() error {
		c, err := net.Dial("udp4", a.v4().String()+":9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("honest"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 100)
	if n, from, err := listener.ReadFrom(word); err != nil || string(word[:n]) != "honest" || !strings.HasPrefix(from.String(), b.v4().String()+":") {
		t.Errorf("the first packet to arrive: %q from %v, %v", word[:n], from, err)
	}
}

// Two members whose keys lead to the same address: the lower ID keeps it, the
// other takes the next one, and both work.
func TestAddressCollision(t *testing.T) {
	const cidr = "10.99.7.0/24" // 254 addresses make a collision easy to find
	w := newWorld(t, "a", "b", "c")
	tok, err := token.Parse(w.token)
	if err != nil {
		t.Fatal(err)
	}
	more := "  overlay:\n    cidr: " + cidr + "\n"
	dirs := collidingKeys(t, tok, cidr)
	for i, name := range []string{"a", "b"} {
		if err := os.Rename(dirs[i], filepath.Join(w.machine(name).Dir(), "state")); err != nil {
			t.Fatal(err)
		}
	}
	nodes := []*node{w.start("a", more), w.start("b", more), w.start("c", more)}
	w.awaitMesh(nodes...)
	w.eventually(20*time.Second, "the collision is resolved", func() error {
		if one, two := nodes[0].v4(), nodes[1].v4(); one == two {
			return fmt.Errorf("both have %s", one)
		}
		return nil
	})
	for _, from := range nodes {
		for _, to := range nodes {
			w.eventually(10*time.Second, from.Name()+" reaches "+to.Name(), func() error { return from.ping(to.v4().String()) })
		}
	}
}

// collidingKeys makes two state directories whose keys want the same address.
func collidingKeys(t *testing.T, tok token.Token, cidr string) [2]string {
	t.Helper()
	network, err := identity.NetworkOf(tok.Keys().Address, netip.MustParsePrefix(cidr))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for range 2000 {
		dir := filepath.Join(t.TempDir(), "state")
		key, _, err := identity.LoadOrCreate(filepath.Join(dir, "identity.key"), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		addr := network.V4Addr(key.ID(), 0).String()
		if other, ok := seen[addr]; ok {
			return [2]string{other, dir}
		}
		seen[addr] = dir
	}
	t.Fatal("found no two keys with the same address")
	return [2]string{}
}

// The API answers on this machine's loopback only, and only to those who ask
// for it by a loopback name.
func TestAPIIsLocal(t *testing.T) {
	w := newWorld(t, "a", "b")
	nodes := w.startAll()
	a, b := nodes[0], nodes[1]
	if _, err := a.get("http://127.0.0.1:8080/api/v1/status", ""); err != nil {
		t.Errorf("from the machine itself: %v", err)
	}
	for _, addr := range []string{a.Addr().String(), a.v4().String(), "[" + a.status().Addresses[1].String() + "]"} {
		if text, err := b.get("http://"+addr+":8080/api/v1/status", ""); err == nil {
			t.Errorf("from another machine by %s: %s", addr, text)
		}
	}
	if text, err := a.get("http://127.0.0.1:8080/api/v1/status", "evil.example"); err == nil {
		t.Errorf("with a foreign Host header: %s", text)
	}
	if text, err := a.get("http://127.0.0.1:8080/control/v1/sign", ""); err == nil {
		t.Errorf("control over TCP: %s", text)
	}
}
