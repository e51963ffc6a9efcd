package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/identity"
)

func TestMain(m *testing.M) {
	// net/http lingers half a second after it refused a request whose body it did not read.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// fake is a View and a Control with one member.
type fake struct {
	mu          sync.Mutex
	revision    uint64
	changed     chan struct{}
	annotations map[string]string
	routes      Routes
	pinned      bool
	cluster     *Cluster
	notReady    error
}

func newFake() *fake { return &fake{revision: 1, changed: make(chan struct{})} }

var testID = identity.ID{1, 2, 3}

func (f *fake) Status() Status {
	return Status{
		ID: testID, Name: "alpha-aebag", Kind: KindNode, NetworkID: "kairos", Interface: "kairos0", MTU: 1420,
		Addresses: []netip.Addr{netip.MustParseAddr("10.77.1.2")}, Declared: 3, Quorum: 2, Uptime: Duration(90 * time.Second),
	}
}

func (f *fake) Nodes(ctx context.Context, after uint64) NodeList {
	f.mu.Lock()
	for f.revision <= after && ctx.Err() == nil {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	return NodeList{Revision: f.revision, Nodes: []Node{{ID: testID, Self: true, Annotations: f.annotations}}}
}

func (f *fake) bump() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision++
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) Peers() []Peer     { return nil }
func (f *fake) Records() []Record { return []Record{{ID: testID, Seq: 7}} }

func (f *fake) Cluster() (Cluster, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cluster == nil {
		return Cluster{}, &Error{Message: "there is no cluster yet", Hint: "wait for it", Status: http.StatusNotFound}
	}
	return *f.cluster, nil
}

func (f *fake) setCluster(c Cluster) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cluster = &c
	return nil
}

func (f *fake) SetAnnotations(a map[string]string) error {
	f.mu.Lock()
	f.annotations = a
	f.mu.Unlock()
	f.bump()
	return nil
}

func (f *fake) SetRoutes(r Routes) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.routes = r
	return nil
}

func (f *fake) Pin() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pinned {
		return errors.New("pinned twice")
	}
	f.pinned = true
	return nil
}

func (f *fake) Sign(context string, message []byte) ([]byte, error) {
	return append([]byte(context+"\x00"), message...), nil
}

func (f *fake) Certificate(publicKey []byte) ([][]byte, error) {
	if len(publicKey) == 0 {
		return nil, &Error{Message: "no public key", Status: http.StatusBadRequest}
	}
	return [][]byte{publicKey, {9}}, nil
}

func (f *fake) ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.notReady
}

func (f *fake) setNotReady(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notReady = err
}

func (f *fake) config() Config {
	return Config{
		View: f, Control: f, SetCluster: f.setCluster, Ready: f.ready,
		Extra: map[string]http.Handler{"echo": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			WriteJSON(w, http.StatusOK, map[string]string{"method": r.Method})
		})},
	}
}

// startTCP serves the fake's read-only API on loopback and returns host:port.
func startTCP(t *testing.T, f *fake) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	start(t, f, func(s *Server) error { return s.ServeTCP(l) })
	return l.Addr().String()
}

func start(t *testing.T, f *fake, serve func(*Server) error) {
	t.Helper()
	s := NewServer(f.config())
	done := make(chan error, 1)
	go func() { done <- serve(s) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
