package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/k3s/k3stest"
)

// fakeRuntime is containerd with k3s in it. What is in it outlives an agent.
type fakeRuntime struct {
	files   k3s.Files
	started func() // after Start

	stock *stock // content; nil: images are there by saying so

	mu     sync.Mutex
	image  bool
	status k3s.Status
	asked  int // calls of any kind
	starts int
	stops  int
	spec   k3s.Spec
	exit   chan struct{}
	down   error    // what every call answers: containerd is away
	hang   bool     // Status answers nothing
	refuse error    // what Start answers
	stuck  error    // what Stop answers
	ended  []string // sandboxes of pods
}

func (f *fakeRuntime) Status(ctx context.Context) (k3s.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.hang {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return k3s.Status{}, ctx.Err()
	}
	return f.status, f.down
}

func (f *fakeRuntime) Start(_ context.Context, s k3s.Spec) error {
	if f.started != nil {
		defer f.started()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if err := errors.Join(f.down, f.refuse); err != nil {
		return err
	}
	if !f.image && f.stock == nil {
		return errors.New("no image")
	}
	if f.status.Running && f.status.SpecHash == s.Hash() {
		return nil
	}
	f.starts++
	f.spec, f.exit = s, make(chan struct{})
	f.status = k3s.Status{Exists: true, Running: true, PID: uint32(f.starts), Role: s.Role, UID: s.UID, SpecHash: s.Hash()}
	if s.Role == k3s.Server {
		return f.becomeServer()
	}
	return nil
}

// becomeServer leaves what a k3s server leaves.
func (f *fakeRuntime) becomeServer() error {
	db := filepath.Join(f.files.Dir, "server", "db")
	if err := errors.Join(os.MkdirAll(db, 0o700), os.MkdirAll(filepath.Dir(f.files.ServerCA()), 0o700)); err != nil {
		return err
	}
	data, err := os.OpenFile(filepath.Join(db, "state.db"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(data.Close(), os.WriteFile(f.files.ServerCA(), fakeCA().File, 0o600))
}

// fakeCA is a certificate authority as k3s makes one, the same in each call.
var fakeCA = sync.OnceValue(k3stest.NewAuthority)

// joinOf is what a worker of testUID has on its disk that joined the server at addr.
func joinOf(ca k3stest.Authority, addr netip.Addr) k3s.Join {
	a, err := k3s.ParseAuthority(ca.File)
	if err != nil {
		panic(err)
	}
	return k3s.Join{UID: testUID, CA: a, Token: "K10" + a.Hash() + "::node:s", Server: addr}
}

func (f *fakeRuntime) Stop(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.stuck != nil {
		return f.stuck
	}
	f.status = k3s.Status{}
	f.stops++
	return f.down
}

func (f *fakeRuntime) Exited(context.Context) (<-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.exit, nil
}

// EndPods notes whom it is to end.
func (f *fakeRuntime) EndPods(_ context.Context, sandboxes []string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = append(f.ended, sandboxes...)
	return len(sandboxes), nil
}

// crash ends k3s.
func (f *fakeRuntime) crash() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Running, f.status.ExitCode = false, 137
	close(f.exit)
}

func (f *fakeRuntime) ImageDigest(context.Context, string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.stock != nil {
		return f.stock.k3sDigest(), f.down
	}
	if !f.image {
		return "", f.down
	}
	return "sha256:" + strings.Repeat("1", 64), f.down
}

func (f *fakeRuntime) ImportImage(ctx context.Context, name string, fill k3s.Fill) error {
	if f.stock != nil { // this test is about where images come from
		return f.stock.importK3s(ctx, name, fill)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.image = true
	return nil
}
