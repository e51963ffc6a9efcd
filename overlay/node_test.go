package overlay

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/overlay/tun"
	"github.com/kairos-io/kairos/overlay/tun/tuntest"
)

// fakeDevice is an interface whose kernel is the test.
type fakeDevice struct {
	*tuntest.Device
	mu     sync.Mutex
	addrs  []netip.Prefix
	routes []tun.Route

	shadows []tun.Shadow
	changed chan struct{}
}

func (d *fakeDevice) Changed() <-chan struct{} { return d.changed }

func (d *fakeDevice) Shadows([]netip.Prefix) ([]tun.Shadow, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shadows, nil
}

func (d *fakeDevice) SetAddrs(a []netip.Prefix) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs = slices.Clone(a)
	return nil
}

func (d *fakeDevice) SetRoutes(r []tun.Route) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.routes = slices.Clone(r)
	return nil
}

// devices hands out fake interfaces by name.
var devices sync.Map

func TestMain(m *testing.M) {
	openDevice = func(cfg tun.Config) (device, error) {
		d := &fakeDevice{Device: tuntest.New(cfg.Name, cfg.MTU, 64), addrs: cfg.Addrs, changed: make(chan struct{}, 1)}
		devices.Store(cfg.Name, d)
		return d, nil
	}
	goleak.VerifyTestMain(m)
}

type machine struct {
	*Node
	dev    *fakeDevice
	client *api.Client
	opts   Options
	broken bool // it ends with an error, which its test looks at
}

// boot starts a member that calls the given machines on loopback.
func boot(t *testing.T, opts Options, call ...*machine) *machine {
	t.Helper()
	opts.Kind, opts.NetworkID, opts.Interface = orElse(opts.Kind, api.KindNode), "kairos", opts.Name
	opts.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	opts.loopback = true
	if opts.RuntimeDir == "" {
		opts.RuntimeDir = t.TempDir()
	}
	opts.Socket, opts.SocketUID = filepath.Join(opts.RuntimeDir, "o.sock"), -1
	for _, m := range call {
		opts.Peers = append(opts.Peers, m.Status().Underlay...)
	}
	n, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	dev, _ := devices.Load(opts.Name)
	m := &machine{Node: n, dev: dev.(*fakeDevice), client: api.NewClient(opts.Socket), opts: opts}
	t.Cleanup(func() {
		m.client.CloseIdle()
		if err := m.Close(); err != nil && !m.broken {
			t.Error(err)
		}
	})
	return m
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func newToken(t *testing.T, nodes int) token.Token {
	t.Helper()
	tok, err := token.Generate(rand.Reader, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// await waits for a revision of m's members that satisfies ok.
func (m *machine) await(t *testing.T, what string, ok func([]api.Node) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var after uint64
	for {
		list, err := m.client.Nodes(ctx, after, 10*time.Second)
		if err != nil {
			t.Fatalf("%s waits for %s: %v", m.opts.Name, what, err)
		}
		if ok(list.Nodes) {
			return
		}
		after = list.Revision
	}
}

// awaitDirect waits until packets to a member go as datagrams. That is no change of
// the world, so it has no event: it is asked for.
func (m *machine) awaitDirect(t *testing.T, id identity.ID) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		list, err := m.client.Nodes(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(list.Nodes, func(n api.Node) bool { return n.ID == id && n.Path == "direct" }) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not reach %s directly: %+v", m.opts.Name, id.Short(), list.Nodes)
		}
	}
}

func connectedTo(id identity.ID) func([]api.Node) bool {
	return func(nodes []api.Node) bool {
		return slices.ContainsFunc(nodes, func(n api.Node) bool { return n.ID == id && n.Connected })
	}
}

func absent(id identity.ID) func([]api.Node) bool {
	return func(nodes []api.Node) bool {
		return !slices.ContainsFunc(nodes, func(n api.Node) bool { return n.ID == id })
	}
}

// packet is a minimal IPv4 packet (RFC 791) of protocol 253, "for experiments" (RFC 3692).
func packet(src, dst netip.Addr) []byte {
	p := make([]byte, 24)
	p[0], p[8], p[9] = 0x45, 64, 253
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	return p
}

// send lets m send packets to dst until one of them arrives at to: as with
// ping, the first may be lost. Other packets (ICMP advice) are passed over.
func (m *machine) send(t *testing.T, dst netip.Addr, to *machine) {
	t.Helper()
	src := m.Status().Addresses[0]
	timeout := time.After(20 * time.Second)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	m.dev.Inject(packet(src, dst))
	for {
		select {
		case p := <-to.dev.Out:
			if netip.AddrFrom4([4]byte(p[12:16])) == src && p[9] == 253 {
				return
			}
		case <-again.C:
			m.dev.Inject(packet(src, dst))
		case <-timeout:
			t.Fatalf("%s got no packet from %s", to.opts.Name, src)
		}
	}
}

func TestTwoMembers(t *testing.T) {
	tok := newToken(t, 2)
	a := boot(t, Options{Token: tok, Name: "two-a"})
	if w := a.Status().Waiting; w == "" {
		t.Error("a member alone waits for nothing")
	}
	b := boot(t, Options{Token: tok, Name: "two-b"}, a)
	a.await(t, "b", connectedTo(b.ID()))
	b.await(t, "a", connectedTo(a.ID()))
	if w := a.Status().Waiting; w != "" {
		t.Errorf("still waiting for %s", w)
	}
	a.send(t, b.Status().Addresses[0], b)
	b.send(t, a.Status().Addresses[0], a)
	a.awaitDirect(t, b.ID())
	b.awaitDirect(t, a.ID())
	a.send(t, b.Status().Addresses[0], b)
	b.send(t, a.Status().Addresses[0], a)
	if err := a.Alive(); err != nil {
		t.Error(err)
	}
	peers, err := a.client.Peers(t.Context())
	if err != nil || len(peers) != 1 || peers[0].TxPackets == 0 || peers[0].RxPackets == 0 || peers[0].Name != b.Status().Name {
		t.Errorf("peers: %+v, %v", peers, err)
	}
	if p := peers[0]; p.Path != "direct" || p.Why != "udp probe answered" || p.RTT <= 0 || p.LastRTT <= 0 || p.Loss > 0 || p.MTU < datapath.MinMTU {
		t.Errorf("the way to the peer: %+v", p)
	}
	got := map[string]float64{}
	for _, m := range a.metrics() {
		got[fmt.Sprint(m.Name, m.Labels)] = m.Value
	}
	want := map[string]float64{"peers[{path direct}]": 1, "peers[{path quic}]": 0, "peers[{path tcp}]": 0, "socket_kernel_drops_total[]": 0, "socket_quic_drops_total[]": 0}
	if _, ok := got["socket_unsegmented[]"]; !ok {
		t.Error("no metric of segmentation")
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("metric %s is %v, %v; want %v", name, v, ok, value)
		}
	}
}

// TestAgentsWords: annotations and routes reach the others, survive a restart
// of the daemon, and carry packets.
func TestAgentsWords(t *testing.T) {
	tok := newToken(t, 2)
	run, state := t.TempDir(), t.TempDir()
	pods := netip.MustParsePrefix("10.42.0.0/16")
	mine := netip.MustParsePrefix("10.42.1.0/24")
	a := boot(t, Options{Token: tok, Name: "words-a", RuntimeDir: run, StateDir: state})
	b := boot(t, Options{Token: tok, Name: "words-b", Routes: api.Routes{Accept: api.Accept{NetworkID: "kairos", Range: pods}}}, a)
	if err := a.client.SetAnnotations(t.Context(), map[string]string{api.NoteRole: "server"}); err != nil {
		t.Fatal(err)
	}
	routes := api.Routes{Announce: []netip.Prefix{mine}, Accept: api.Accept{NetworkID: "kairos", Range: pods}}
	if err := a.client.SetRoutes(t.Context(), routes); err != nil {
		t.Fatal(err)
	}
	if err := a.client.Pin(t.Context()); err != nil {
		t.Fatal(err)
	}
	says := func(nodes []api.Node) bool {
		return slices.ContainsFunc(nodes, func(n api.Node) bool {
			return n.ID == a.ID() && n.Connected && n.Annotations[api.NoteRole] == "server" && slices.Equal(n.Prefixes, routes.Announce)
		})
	}
	b.await(t, "a's words", says)
	b.send(t, mine.Addr().Next(), a)
	a.dev.mu.Lock()
	if want := (tun.Route{Prefix: pods, Src: a.Status().Addresses[0]}); !slices.Contains(a.dev.routes, want) {
		t.Errorf("kernel routes: %v", a.dev.routes)
	}
	a.dev.mu.Unlock()

	before := a.Status()
	a.client.CloseIdle()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = boot(t, Options{Token: tok, Name: "words-a", RuntimeDir: run, StateDir: state}, b)
	if after := a.Status(); after.ID != before.ID || after.Addresses[0] != before.Addresses[0] || !after.Pinned {
		t.Errorf("after the restart: %+v", after)
	}
	self := a.Nodes(t.Context(), 0).Nodes
	if i := slices.IndexFunc(self, func(n api.Node) bool { return n.Self }); i < 0 ||
		!slices.Equal(self[i].Prefixes, routes.Announce) || self[i].Annotations[api.NoteRole] != "server" {
		t.Errorf("after the restart it says %+v", self)
	}
	b.await(t, "a's words again", says)
}

func TestBridgeLeaves(t *testing.T) {
	tok := newToken(t, 1)
	a := boot(t, Options{Token: tok, Name: "leave-a"})
	if w := a.Status().Waiting; w != "" {
		t.Errorf("a network of one waits for %s", w)
	}
	bridge := boot(t, Options{Token: tok, Name: "leave-b", Kind: api.KindBridge}, a)
	a.await(t, "the bridge", connectedTo(bridge.ID()))
	bridge.await(t, "the member", connectedTo(a.ID()))
	bridge.client.CloseIdle()
	start := time.Now()
	if err := bridge.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took >= leaveTimeout {
		t.Errorf("nobody confirmed the goodbye: closing took %s", took)
	}
	if err := bridge.Wait(); err != nil {
		t.Errorf("wait: %v", err)
	}
	a.await(t, "the bridge's goodbye", absent(bridge.ID()))
}

// TestAddressConflict: two members want one address; the lower ID keeps it.
func TestAddressConflict(t *testing.T) {
	tok := newToken(t, 2)
	net, err := identity.NetworkOf(tok.Keys().Address, netip.MustParsePrefix("10.200.7.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	low, high := colliding(t, net)
	a := boot(t, Options{Token: tok, Name: "clash-a", CIDR: net.V4, StateDir: high})
	b := boot(t, Options{Token: tok, Name: "clash-b", CIDR: net.V4, StateDir: low}, a)
	first := b.Status().Addresses[0]
	moved := func(nodes []api.Node) bool {
		return slices.ContainsFunc(nodes, func(n api.Node) bool {
			return n.ID == a.ID() && n.Connected && len(n.Addresses) > 0 && n.Addresses[0] != first
		})
	}
	b.await(t, "a to move", moved)
	a.await(t, "itself to move", func(nodes []api.Node) bool {
		return slices.ContainsFunc(nodes, func(n api.Node) bool { return n.Self && n.Addresses[0] != first })
	})
	if got := b.Status().Addresses[0]; got != first {
		t.Errorf("the lower ID moved to %s", got)
	}
	s, err := loadState(high)
	if err != nil || s.Attempt == 0 {
		t.Errorf("not persisted: %+v, %v", s, err)
	}
	b.send(t, a.Status().Addresses[0], a)
}

// colliding makes two state directories whose keys have one natural address.
func colliding(t *testing.T, net identity.Network) (low, high string) {
	t.Helper()
	seen := map[netip.Addr]string{}
	ids := map[string]identity.ID{}
	for {
		dir := t.TempDir()
		key, _, err := identity.LoadOrCreate(filepath.Join(dir, keyFile), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ids[dir] = key.ID()
		addr := net.V4Addr(key.ID(), 0)
		other, ok := seen[addr]
		if !ok {
			seen[addr] = dir
			continue
		}
		if ids[other].Compare(key.ID()) < 0 {
			return other, dir
		}
		return dir, other
	}
}

func TestOtherTokenIsNoMember(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 2), Name: "other-a"})
	b := boot(t, Options{Token: newToken(t, 2), Name: "other-b"}, a)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for a.mesh.Stats().Admission.RefusedProof == 0 {
		select {
		case <-ctx.Done():
			t.Fatal("nobody was refused")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if len(a.mesh.Peers())+len(b.mesh.Peers()) != 0 {
		t.Error("a stranger is a peer")
	}
	if w := a.Status().Waiting; w == "" {
		t.Error("nothing is waited for")
	}
}

func TestSecondStart(t *testing.T) {
	tok := newToken(t, 2)
	a := boot(t, Options{Token: tok, Name: "second-a"})
	opts := a.opts
	if _, err := Start(t.Context(), opts); !errors.Is(err, ErrRunning) {
		t.Errorf("got %v", err)
	}
}

func TestEndOfContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n, err := Start(ctx, Options{
		Token: newToken(t, 1), Kind: api.KindNode, Name: "ctx", Interface: "ctx",
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, loopback: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := n.Wait(); err != nil {
		t.Error(err)
	}
}

// TestDeviceFails: the end of the interface is the end of the node, with the reason.
func TestDeviceFails(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 1), Name: "broken"})
	a.broken = true
	if err := a.dev.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Wait(); err == nil {
		t.Error("the node ended without a reason")
	}
}

// TestForeignRevision: a revision of an earlier run is not waited for.
func TestForeignRevision(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 1), Name: "revision"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whoever waits returns at once as well: compare the two
	now := a.Nodes(ctx, 0).Revision
	got := make(chan uint64, 1)
	go func() { got <- a.Nodes(t.Context(), now+1000).Revision }()
	select {
	case r := <-got:
		if r < now {
			t.Errorf("got %d after %d", r, now)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("waits for a revision that never comes")
	}
}

func TestBadRoutes(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 1), Name: "badroutes"})
	pods := netip.MustParsePrefix("10.42.0.0/16")
	accept := api.Accept{NetworkID: "kairos", Range: pods}
	for name, r := range map[string]api.Routes{
		"host bits":        {Local: []netip.Prefix{netip.MustParsePrefix("10.43.0.1/16")}},
		"everything":       {Local: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}},
		"the overlay":      {Local: []netip.Prefix{a.network.V4}},
		"outside accepted": {Announce: []netip.Prefix{netip.MustParsePrefix("10.50.1.0/24")}, Accept: accept},
		"nothing accepted": {Announce: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")}},
	} {
		var e *api.Error
		if err := a.client.SetRoutes(t.Context(), r); !errors.As(err, &e) || e.Status != 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := map[string]string{}
	for i := range 40 {
		many[string(rune('a'+i%26))+string(rune('a'+i/26))] = "x"
	}
	var e *api.Error
	if err := a.client.SetAnnotations(t.Context(), many); !errors.As(err, &e) || e.Status != 400 {
		t.Errorf("too many annotations: %v", err)
	}
	if got := a.Status(); len(got.Conditions) != 0 {
		t.Errorf("conditions: %v", got.Conditions)
	}
}
