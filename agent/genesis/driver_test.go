package genesis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// mesh is some nodes in one process, with real keys and virtual time. Who may
// talk to whom is reach; what a node says about itself follows from its driver.
type mesh struct {
	t       *testing.T
	network Network

	mu      sync.Mutex
	nodes   []*meshNode // by ID
	changed chan struct{}
}

type meshNode struct {
	mesh   *mesh
	key    identity.Key
	wanted agentapi.Wanted
	group  int // nodes of one group reach each other; -1: off
	server bool
	disk   *memStore
	driver *Driver
	cancel context.CancelFunc
	done   chan error
}

type memStore struct {
	mu    sync.Mutex
	state State
	fail  error
	saves int
}

func (m *memStore) Load() (State, error) { m.mu.Lock(); defer m.mu.Unlock(); return m.state, nil }
func (m *memStore) Save(s State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.state, m.saves = s, m.saves+1
	return nil
}

func newMesh(t *testing.T, declared, n int) *mesh {
	m := &mesh{t: t, changed: make(chan struct{}),
		network: Network{Fingerprint: [32]byte{9}, ID: "home", Nodes: declared, Quorum: declared/2 + 1}}
	for range n {
		m.add("")
	}
	return m
}

func (m *mesh) add(wanted agentapi.Wanted) *meshNode {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	n := &meshNode{mesh: m, key: key, wanted: wanted, group: -1, disk: &memStore{}}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := 0
	for at < len(m.nodes) && m.nodes[at].key.ID().Compare(key.ID()) < 0 {
		at++
	}
	m.nodes = append(m.nodes[:at], append([]*meshNode{n}, m.nodes[at:]...)...)
	return n
}

// join puts nodes into a group and wakes everybody.
func (m *mesh) join(group int, nodes ...*meshNode) {
	m.mu.Lock()
	for _, n := range nodes {
		n.group = group
	}
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
}

func (n *meshNode) Members() []Member {
	m := n.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Member
	for _, o := range m.nodes {
		if o.driver == nil {
			continue
		}
		mem := Member{ID: o.key.ID(), Wanted: o.wanted, Connected: o == n || o.group == n.group && o.group >= 0, Server: o.server}
		if st := o.driver.Status(); st.Decision != nil {
			mem.ClusterUID, mem.Epoch = st.Decision.UID().String(), st.Decision.Epoch()
		}
		mem.Abstains = o.driver.Status().Abstains
		if mem.Connected {
			out = append(out, mem)
		}
	}
	return out
}

func (n *meshNode) Changed() <-chan struct{} {
	n.mesh.mu.Lock()
	defer n.mesh.mu.Unlock()
	return n.mesh.changed
}

func (n *meshNode) Sign(_ context.Context, signContext string, msg []byte) ([]byte, error) {
	return n.key.Sign(signContext, msg), nil
}

func (n *meshNode) Send(ctx context.Context, to identity.ID, msg []byte) ([]byte, error) {
	n.mesh.mu.Lock()
	var target *meshNode
	for _, o := range n.mesh.nodes {
		if o.key.ID() == to && o.group == n.group && o.group >= 0 {
			target = o
		}
	}
	n.mesh.mu.Unlock()
	if target == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return target.driver.HandleMessage(ctx, n.key.ID(), msg)
}

func (n *meshNode) start() {
	d, err := NewDriver(Options{Self: n.key.ID(), Network: n.mesh.network, Transport: n, Signer: n, Store: n.disk, View: n})
	if err != nil {
		n.mesh.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.mesh.t.Context())
	n.mesh.mu.Lock()
	n.driver, n.cancel, n.done = d, cancel, make(chan error, 1)
	n.mesh.mu.Unlock()
	go func() { n.done <- d.Run(ctx) }()
}

func (n *meshNode) stop() {
	n.cancel()
	if err := <-n.done; err != nil {
		n.mesh.t.Errorf("run: %v", err)
	}
}

func (m *mesh) startAll() {
	for _, n := range m.nodes {
		n.start()
	}
	m.join(0, m.nodes...)
}

func (m *mesh) stopAll() {
	for _, n := range m.nodes {
		if n.driver != nil {
			n.stop()
		}
	}
}

// settle lets virtual time pass and says what each node thinks.
func (m *mesh) settle(d time.Duration) []Status {
	time.Sleep(d) // virtual: inside a synctest bubble
	synctest.Wait()
	out := make([]Status, len(m.nodes))
	for i, n := range m.nodes {
		if n.driver != nil {
			out[i] = n.driver.Status()
		}
	}
	return out
}

func wantServer(t *testing.T, all []Status, server *meshNode) UID {
	t.Helper()
	var uid UID
	for i, s := range all {
		if s.Decision == nil {
			t.Fatalf("node %d has no decision: %s", i, s.Waiting)
		}
		if got := s.Decision.Servers(); len(got) != 1 || got[0] != server.key.ID() {
			t.Fatalf("node %d: servers %v, want %s", i, got, server.key.ID())
		}
		if i > 0 && s.Decision.UID() != uid {
			t.Fatalf("node %d: uid %s, node 0: %s", i, s.Decision.UID(), uid)
		}
		uid = s.Decision.UID()
	}
	return uid
}

func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestDriverBirth(t *testing.T) {
	bubble(t, "all declared nodes are there: the lowest ID at once", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.startAll()
		defer m.stopAll()
		wantServer(t, m.settle(2*time.Second), m.nodes[0])
	})
	bubble(t, "a quorum waits ten seconds for the rest", func(t *testing.T) {
		m := newMesh(t, 3, 2)
		m.startAll()
		defer m.stopAll()
		for i, s := range m.settle(SettleTime - time.Second) {
			if s.Decision != nil {
				t.Fatalf("node %d decided too early", i)
			}
			if s.Waiting == "" {
				t.Errorf("node %d does not say what it waits for", i)
			}
		}
		wantServer(t, m.settle(2*time.Second), m.nodes[0])
	})
	bubble(t, "fewer than a quorum never decide", func(t *testing.T) {
		m := newMesh(t, 5, 2)
		m.startAll()
		defer m.stopAll()
		for i, s := range m.settle(24 * time.Hour) {
			if s.Decision != nil || !strings.Contains(s.Waiting, "need 3 machines of 5 to agree, see 2") {
				t.Errorf("node %d: decision %v, waiting %q", i, s.Decision, s.Waiting)
			}
		}
	})
	bubble(t, "a token for one node starts alone", func(t *testing.T) {
		m := newMesh(t, 1, 1)
		m.startAll()
		defer m.stopAll()
		uid := wantServer(t, m.settle(SettleTime+time.Second), m.nodes[0])
		if err := m.nodes[0].driver.ProposeStarted(t.Context(), uid); err != nil {
			t.Error(err)
		}
	})
	bubble(t, "a later node joins the lone one instead of starting", func(t *testing.T) {
		m := newMesh(t, 1, 1)
		first := m.nodes[0]
		m.startAll()
		m.settle(SettleTime + time.Second)
		late := m.add("")
		late.start()
		m.join(0, late)
		defer m.stopAll()
		wantServer(t, m.settle(time.Minute), first)
	})
	bubble(t, "role master restricts who is named", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.nodes[2].wanted = agentapi.WantedMaster
		m.startAll()
		defer m.stopAll()
		wantServer(t, m.settle(2*time.Second), m.nodes[2])
	})
	bubble(t, "role worker is not named and votes", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.nodes[0].wanted, m.nodes[1].wanted = agentapi.WantedWorker, agentapi.WantedWorker
		m.startAll()
		defer m.stopAll()
		wantServer(t, m.settle(2*time.Second), m.nodes[2])
	})
	bubble(t, "only workers: says so", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		for _, n := range m.nodes {
			n.wanted = agentapi.WantedWorker
		}
		m.startAll()
		defer m.stopAll()
		if s := m.settle(time.Hour)[0]; s.Decision != nil || !strings.Contains(s.Waiting, "role: worker") {
			t.Errorf("decision %v, waiting %q", s.Decision, s.Waiting)
		}
	})
	bubble(t, "2|3 partition: only the greater part decides, all agree after healing", func(t *testing.T) {
		m := newMesh(t, 5, 5)
		for _, n := range m.nodes {
			n.start()
		}
		m.join(1, m.nodes[0], m.nodes[1])
		m.join(2, m.nodes[2:]...)
		defer m.stopAll()
		for i, s := range m.settle(5 * time.Minute)[:2] {
			if s.Decision != nil {
				t.Errorf("node %d of the smaller part decided", i)
			}
		}
		m.join(0, m.nodes...)
		wantServer(t, m.settle(2*time.Minute), m.nodes[2])
	})
}

func TestDriverOutcome(t *testing.T) {
	bubble(t, "the named server wins started and everybody learns it", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.startAll()
		defer m.stopAll()
		uid := wantServer(t, m.settle(2*time.Second), m.nodes[0])
		if err := m.nodes[0].driver.ProposeStarted(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
		if err := m.nodes[1].driver.ProposeStarted(t.Context(), uid); !errors.Is(err, ErrNotNamed) {
			t.Errorf("another node: %v", err)
		}
		m.mu.Lock()
		m.nodes[0].server = true
		m.mu.Unlock()
		m.join(0, m.nodes...)
		for i, s := range m.settle(time.Hour) {
			if s.Decision == nil || s.Decision.Result() != Started || s.Epoch != 1 {
				t.Errorf("node %d: %+v", i, s)
			}
		}
	})
	bubble(t, "a paused server is abandoned after 15 minutes and may not start", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.startAll()
		uid := wantServer(t, m.settle(2*time.Second), m.nodes[0])
		paused := m.nodes[0]
		m.join(7, paused)
		if s := m.settle(AbandonAfter - time.Minute)[1]; s.Epoch != 1 {
			t.Fatalf("abandoned too early: %+v", s)
		}
		wantServer(t, m.settle(2 * time.Minute)[1:], m.nodes[1])
		m.join(0, paused)
		defer m.stopAll()
		err := paused.driver.ProposeStarted(t.Context(), uid)
		if !errors.Is(err, ErrAbandoned) {
			t.Errorf("resumed server: %v", err)
		}
		wantServer(t, m.settle(2*time.Minute), m.nodes[1])
	})
	bubble(t, "who only says that it is the server keeps nobody waiting", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.startAll()
		defer m.stopAll()
		wantServer(t, m.settle(2*time.Second), m.nodes[0])
		m.mu.Lock()
		m.nodes[2].server = true
		m.mu.Unlock()
		m.join(7, m.nodes[0])
		wantServer(t, m.settle(AbandonAfter + time.Minute)[1:], m.nodes[1])
	})
	bubble(t, "without a quorum starting waits for ctx", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.startAll()
		defer m.stopAll()
		uid := wantServer(t, m.settle(2*time.Second), m.nodes[0])
		m.join(7, m.nodes[0])
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := m.nodes[0].driver.ProposeStarted(ctx, uid); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDriverRestart(t *testing.T) {
	bubble(t, "a decision survives", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.startAll()
		uid := wantServer(t, m.settle(2*time.Second), m.nodes[0])
		m.stopAll()
		for _, n := range m.nodes {
			n.group = -1
		}
		m.startAll()
		defer m.stopAll()
		if got := wantServer(t, m.settle(time.Second), m.nodes[0]); got != uid {
			t.Errorf("uid %s, want %s", got, uid)
		}
	})
	bubble(t, "votes of another network are refused", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		m.startAll()
		m.settle(2 * time.Second)
		m.stopAll()
		other := m.network
		other.ID = "office"
		n := m.nodes[0]
		_, err := NewDriver(Options{Self: n.key.ID(), Network: other, Transport: n, Signer: n, Store: n.disk, View: n})
		if !errors.Is(err, ErrOtherNetwork) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDriverDiskFull(t *testing.T) {
	bubble(t, "what is not saved is not said", func(t *testing.T) {
		m := newMesh(t, 3, 3)
		for _, n := range m.nodes {
			n.disk.fail = errors.New("no space left on device")
		}
		m.startAll()
		defer m.stopAll()
		for i, s := range m.settle(time.Hour) {
			if s.Decision != nil {
				t.Errorf("node %d decided without a disk", i)
			}
		}
		if s := m.nodes[0].driver.Status(); !strings.Contains(s.Waiting, "no space left") {
			t.Errorf("waiting %q", s.Waiting)
		}
		for _, n := range m.nodes {
			n.disk.mu.Lock()
			n.disk.fail = nil
			n.disk.mu.Unlock()
		}
		all := m.settle(2 * time.Minute)
		for i, s := range all { // who was first is for the back-off to say
			if s.Decision == nil || s.Decision.UID() != all[0].Decision.UID() {
				t.Errorf("node %d: %+v", i, s)
			}
		}
	})
}

func TestDriverRefusesGarbage(t *testing.T) {
	m := newMesh(t, 3, 1)
	n := m.nodes[0]
	d, err := NewDriver(Options{Self: n.key.ID(), Network: m.network, Transport: n, Signer: n, Store: n.disk, View: n})
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range []string{"", "{}", "null", "[1]", `{"v":1,"type":"promise","network_id":"home"}`,
		`{"v":2,"type":"ask","network_id":"home"}`, `{"v":1,"type":"ask","network_id":"office"}`, `{"v":1,"type":"ask"} x`,
		fmt.Sprintf(`{"v":1,"type":"ask","network_id":%q}`, strings.Repeat("a", MaxMessage))} {
		if reply, err := d.HandleMessage(t.Context(), identity.ID{1}, []byte(msg)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.40q: reply %q, error %v", msg, reply, err)
		}
	}
	if n.disk.saves != 0 {
		t.Error("garbage was saved")
	}
}
