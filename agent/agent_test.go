package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/departure"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/kube/kubetest"
	"github.com/kairos-io/kairos/agent/podnet"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
)

// deadline bounds every wait of these tests; they normally need a second or two.
const deadline = 40 * time.Second

// mesh is a network of members on loopback, without any overlay below.
type mesh struct {
	mu       sync.Mutex
	nodes    []api.Node
	revision uint64
	changed  chan struct{}
}

func (m *mesh) edit(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	m.revision++
	close(m.changed)
	m.changed = make(chan struct{})
}

// wait returns when cond holds of the nodes.
func (m *mesh) wait(t *testing.T, what string, cond func([]api.Node) bool) {
	t.Helper()
	limit := time.After(deadline)
	for {
		m.mu.Lock()
		ok, changed, nodes := cond(m.nodes), m.changed, fmt.Sprintf("%+v", m.nodes)
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s did not happen: %s", what, nodes)
		}
	}
}

// daemon is one member's overlay daemon: its control socket.
type daemon struct {
	mesh  *mesh
	index int
	key   ed25519.PrivateKey
	addr  netip.Addr

	pinned bool // the address is fixed
}

func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) { api.WriteJSON(w, http.StatusOK, d.status()) })
	mux.HandleFunc("GET /api/v1/nodes", d.serveNodes)
	mux.HandleFunc("PUT /control/v1/annotations", func(w http.ResponseWriter, r *http.Request) {
		var notes map[string]string
		d.decode(r, &notes)
		d.mesh.edit(func() { d.mesh.nodes[d.index].Annotations = notes })
		api.WriteJSON(w, http.StatusOK, struct{}{})
	})
	mux.HandleFunc("PUT /control/v1/routes", func(w http.ResponseWriter, r *http.Request) {
		var in api.Routes
		d.decode(r, &in)
		d.mesh.edit(func() { d.mesh.nodes[d.index].Prefixes = in.Announce })
		api.WriteJSON(w, http.StatusOK, struct{}{})
	})
	mux.HandleFunc("POST /control/v1/pin", func(w http.ResponseWriter, _ *http.Request) {
		d.mesh.edit(func() { d.pinned = true })
		api.WriteJSON(w, http.StatusOK, struct{}{})
	})
	mux.HandleFunc("PUT /control/v1/documents/cluster", func(w http.ResponseWriter, _ *http.Request) { api.WriteJSON(w, http.StatusOK, struct{}{}) })
	mux.HandleFunc("POST /control/v1/sign", func(w http.ResponseWriter, r *http.Request) {
		var in api.SignRequest
		d.decode(r, &in)
		msg := append([]byte("kairos/"+in.Context+"\x00"), in.Message...)
		api.WriteJSON(w, http.StatusOK, api.SignAnswer{Signature: ed25519.Sign(d.key, msg)})
	})
	mux.HandleFunc("POST /control/v1/certificate", func(w http.ResponseWriter, r *http.Request) {
		var in api.CertificateRequest
		d.decode(r, &in)
		api.WriteJSON(w, http.StatusOK, api.CertificateAnswer{Chain: d.certify(in.PublicKey)})
	})
	return mux
}

func (d *daemon) decode(r *http.Request, into any) {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		panic(err)
	}
}

func (d *daemon) status() api.Status {
	d.mesh.mu.Lock()
	defer d.mesh.mu.Unlock()
	n := d.mesh.nodes[d.index]
	return api.Status{ID: n.ID, Name: n.Name, Kind: n.Kind, NetworkID: n.NetworkID, Interface: "kairos0", MTU: 1420,
		Addresses: n.Addresses, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Pinned: d.pinned}
}

func (d *daemon) serveNodes(w http.ResponseWriter, r *http.Request) {
	after, wait := r.URL.Query().Get("after"), r.URL.Query().Get("wait")
	d.mesh.mu.Lock()
	defer d.mesh.mu.Unlock()
	if limit, err := time.ParseDuration(wait); err == nil && after == fmt.Sprint(d.mesh.revision) {
		changed := d.mesh.changed
		d.mesh.mu.Unlock()
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		select {
		case <-changed:
		case <-ctx.Done():
		}
		cancel()
		d.mesh.mu.Lock()
	}
	list := api.NodeList{Revision: d.mesh.revision}
	for i, n := range d.mesh.nodes {
		n.Self, n.Connected = i == d.index, i != d.index
		list.Nodes = append(list.Nodes, n)
	}
	api.WriteJSON(w, http.StatusOK, list)
}

func (d *daemon) certify(public []byte) [][]byte {
	pub, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "id"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, d.key.Public(), d.key)
	if err != nil {
		panic(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), KeyUsage: x509.KeyUsageDigitalSignature}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, pub, d.key)
	if err != nil {
		panic(err)
	}
	return [][]byte{leafDER, rootDER}
}

// machine is one node: what stays when its agent is killed.
type machine struct {
	daemon  *daemon
	runtime *fakeRuntime
	dir     string
	port    uint16
	token   token.Token
	stall   time.Duration     // of members that give images; 0: as everywhere
	kube    *kubetest.Cluster // what its k3s serves; nil: nothing
}

// config is the configuration that all machines of these tests share.
func (m *machine) config() config.Config {
	cfg := config.Default()
	cfg.NetworkToken, cfg.NetworkID = m.token, "home"
	return cfg
}

// agent makes one that does not run yet.
func (m *machine) agent(t *testing.T, cfg config.Config) *agent {
	t.Helper()
	a := &agent{cfg: cfg, log: slog.New(slog.DiscardHandler), overlay: api.NewClient(filepath.Join(m.dir, "overlay.sock")), runtime: m.runtime,
		prober: func(k3s.Probe) prober {
			return fakeProbe{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, byte(m.daemon.index), 0}), 24), m.kube}
		},
		opt: Options{Config: cfg, Socket: filepath.Join(m.dir, "agent.sock"), StateDir: filepath.Join(m.dir, "state"), Files: m.runtime.files,
			Containerd: "/c.sock", HostsDir: m.dir, Baked: filepath.Join(m.dir, "images"), LeftFile: filepath.Join(m.dir, "run", "left"), PeerPort: m.port, Stall: m.stall,
			// Not faster than a server answers one member.
			LeaveTimes: departure.Times{Pace: 60 * time.Millisecond, Forced: 100 * time.Millisecond, Missing: time.Second, Retire: deadline, Remove: time.Second},
			Disk:       func() (free, size uint64, err error) { return 1 << 40, 1 << 40, nil }, // whatever this machine has
			PodNet: podnet.Host{ConfDir: filepath.Join(m.dir, "cni"), ProcSys: filepath.Join(m.dir, "sys"), Reservations: filepath.Join(m.dir, "reservations"),
				NFT: func(context.Context, string) error { return nil }, Run: func(context.Context, string, ...string) error { return nil }}}}
	if err := a.assemble(m.runtime); err != nil {
		t.Fatal(err)
	}
	return a
}

// start runs an agent and returns how to kill it.
func (m *machine) start(t *testing.T) (stop func()) { return m.startAs(t, m.config()) }

func (m *machine) startAs(t *testing.T, cfg config.Config) (stop func()) {
	t.Helper()
	a := m.agent(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	return func() {
		cancel()
		if err := errors.Join(<-done, a.store.Close()); err != nil {
			t.Error(err)
		}
		a.peers.CloseIdle()
		a.overlay.CloseIdle()
	}
}

// newMesh makes n machines whose tokens declare declared nodes.
func newMesh(t *testing.T, n, declared int) (*mesh, []*machine) {
	t.Helper()
	tok, err := token.Generate(rand.Reader, declared)
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{changed: make(chan struct{}), revision: 1}
	port := freePort(t)
	var out []*machine
	for i := range n {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id := identity.ID(key.Public().(ed25519.PublicKey))
		addr := netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 2)})
		// Every connection on loopback comes from 127.0.0.1.
		m.nodes = append(m.nodes, api.Node{ID: id, Name: fmt.Sprintf("n%d-%s", i, id.Short()), Kind: api.KindNode, NetworkID: "home",
			Addresses: []netip.Addr{addr, netip.MustParseAddr("127.0.0.1")}})
		mc := &machine{daemon: &daemon{mesh: m, index: i, key: key, addr: addr}, dir: t.TempDir(), port: port, token: tok}
		mc.runtime = &fakeRuntime{files: k3s.Files{Dir: filepath.Join(mc.dir, "k3s")}}
		mc.runtime.started = func() { m.edit(func() {}) }
		serveDaemon(t, mc)
		out = append(out, mc)
	}
	return m, out
}

func serveDaemon(t *testing.T, m *machine) {
	t.Helper()
	for k, v := range map[string]string{"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"} {
		p := filepath.Join(m.dir, "sys", k)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(v), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(m.dir, "overlay.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: m.daemon.handler()}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// allReady counts the nodes of each role that say they are ready.
func allReady(nodes []api.Node) (servers, workers int, uids map[string]bool) {
	uids = map[string]bool{}
	for _, n := range nodes {
		a := n.Annotations
		if a[api.NoteReady] != "true" {
			continue
		}
		uids[a[api.NoteClusterUID]] = true
		switch a[api.NoteRole] {
		case "server":
			servers++
		case "worker":
			workers++
		}
	}
	return servers, workers, uids
}

func TestThreeMachinesFormOneCluster(t *testing.T) {
	m, machines := newMesh(t, 3, 3)
	for _, mc := range machines {
		defer mc.start(t)()
	}
	m.wait(t, "one server and two workers", func(nodes []api.Node) bool {
		s, w, uids := allReady(nodes)
		return s == 1 && w == 2 && len(uids) == 1
	})
	for i, mc := range machines {
		mc.runtime.mu.Lock()
		args := strings.Join(mc.runtime.spec.Args, " ")
		spec := fmt.Sprintf("%+v", mc.runtime.spec)
		mc.runtime.mu.Unlock()
		if !strings.Contains(args, "--node-ip="+mc.daemon.addr.String()) {
			t.Errorf("machine %d: not on the overlay: %s", i, args)
		}
		for _, f := range []string{mc.runtime.files.ServerToken(), mc.runtime.files.AgentToken(), mc.runtime.files.JoinToken()} {
			secret, err := os.ReadFile(f)
			if err == nil && strings.Contains(spec, strings.TrimSpace(string(secret))) {
				t.Errorf("machine %d: a secret is in the container's specification", i)
			}
		}
	}
}

func TestFewerThanAQuorumWaits(t *testing.T) {
	m, machines := newMesh(t, 1, 3)
	defer machines[0].start(t)()
	m.wait(t, "a reason to wait", func(nodes []api.Node) bool { return nodes[0].Annotations[api.NoteWaiting] != "" })
	if machines[0].runtime.starts != 0 {
		t.Error("k3s was started alone")
	}
}

func TestNewAgentAdopts(t *testing.T) {
	m, machines := newMesh(t, 3, 3)
	var stops []func()
	for _, mc := range machines {
		stops = append(stops, mc.start(t))
	}
	server := 0
	ready := func(nodes []api.Node) bool {
		for i, n := range nodes {
			if n.Annotations[api.NoteRole] == "server" {
				server = i
			}
		}
		s, w, uids := allReady(nodes)
		return s == 1 && w == 2 && len(uids) == 1
	}
	m.wait(t, "a cluster", ready)
	uid, mc := m.nodes[server].Annotations[api.NoteClusterUID], machines[server]
	stops[server]()
	m.edit(func() { m.nodes[server].Annotations = nil })
	stops[server] = mc.start(t)
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	m.wait(t, "the cluster again", ready)
	if mc.runtime.starts != 1 {
		t.Errorf("k3s was started %d times", mc.runtime.starts)
	}
	if got := m.nodes[server].Annotations[api.NoteClusterUID]; got != uid {
		t.Errorf("cluster %s became %s", uid, got)
	}
	mc.runtime.crash()
	m.wait(t, "k3s to run again", func([]api.Node) bool {
		mc.runtime.mu.Lock()
		defer mc.runtime.mu.Unlock()
		return mc.runtime.starts == 2 && mc.runtime.status.Running
	})
}

func TestDamagedStateStopsNothingAndStartsNothing(t *testing.T) {
	m, machines := newMesh(t, 1, 1)
	mc := machines[0]
	state := filepath.Join(mc.dir, "state")
	if err := errors.Join(os.MkdirAll(state, 0o700), os.WriteFile(filepath.Join(state, "state.json"), []byte("rubbish"), 0o600)); err != nil {
		t.Fatal(err)
	}
	defer mc.start(t)()
	m.wait(t, "a word about it", func(nodes []api.Node) bool {
		return strings.Contains(nodes[0].Annotations[api.NoteWaiting], "state")
	})
	if mc.runtime.starts != 0 {
		t.Error("k3s was started on a damaged state")
	}
}
