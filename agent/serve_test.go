package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/k3s/k3stest"
	"github.com/kairos-io/kairos/agent/kubeconfig"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// pair is a running server and another member that asks it.
type pair struct {
	mesh   *mesh
	server *machine
	stop   func() // ends the server's agent
	asker  *agent
}

func newPair(t *testing.T) *pair {
	t.Helper()
	m, machines := newMesh(t, 2, 2)
	p := &pair{mesh: m, server: machines[0]}
	prepare(t, p.server, store.Server)
	p.stop = sync.OnceFunc(p.server.start(t))
	t.Cleanup(p.stop)
	m.wait(t, "a server", func(n []api.Node) bool { return n[0].Annotations[api.NoteServer] != "" })
	p.asker = machines[1].agent(t, machines[1].config())
	t.Cleanup(func() {
		p.asker.peers.CloseIdle()
		p.asker.overlay.CloseIdle()
		if err := p.asker.store.Close(); err != nil {
			t.Error(err)
		}
	})
	p.look(t)
	return p
}

func (p *pair) look(t *testing.T) {
	t.Helper()
	s, _, err := p.asker.world.ask(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	p.asker.world.set(s)
}

func (p *pair) join(t *testing.T) error {
	t.Helper()
	return p.asker.fetchJoin(t.Context(), role.FetchJoin{From: p.mesh.nodes[0].ID, UID: testUID})
}

func TestFetchJoin(t *testing.T) {
	p := newPair(t)
	if err := p.join(t); err != nil {
		t.Fatal(err)
	}
	got, err := p.asker.opt.Files.ReadJoin()
	ca, cerr := p.server.runtime.files.Authority()
	if err != nil || cerr != nil || got.UID != testUID || got.CA.Hash() != ca.Hash() || got.Server != p.server.daemon.addr {
		t.Errorf("got %+v, %v, %v", got, err, cerr)
	}
}

// The server was made anew: what this worker trusted first stays on its disk.
func TestFetchJoinFromAServerWithAnotherCA(t *testing.T) {
	p := newPair(t)
	first := joinOf(k3stest.NewAuthority(), p.server.daemon.addr)
	if err := p.asker.opt.Files.SaveJoin(first); err != nil {
		t.Fatal(err)
	}
	err := p.join(t)
	var problem *health.Problem
	if !errors.As(err, &problem) || problem.Hint == "" || !strings.Contains(err.Error(), "another certificate authority") {
		t.Errorf("got %v", err)
	}
	if got, err := p.asker.opt.Files.ReadJoin(); err != nil || got.CA.Hash() != first.CA.Hash() {
		t.Errorf("saved %v, %v", got, err)
	}
}

// The server's authority was rotated: the worker trusts the new one, and has its k3s
// read it.
func TestFetchJoinAfterARotation(t *testing.T) {
	p := newPair(t)
	if err := p.join(t); err != nil {
		t.Fatal(err)
	}
	before, err := p.asker.spec(t.Context(), k3s.Agent, testUID)
	if err != nil {
		t.Fatal(err)
	}
	rotated := fakeCA().Rotated()
	if err := os.WriteFile(p.server.runtime.files.ServerCA(), rotated.File, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.join(t); err != nil {
		t.Fatal(err)
	}
	got, err := p.asker.opt.Files.ReadJoin()
	file, _ := got.CA.MarshalText() // never fails
	if err != nil || !bytes.Equal(file, rotated.File) {
		t.Errorf("got %v, %v", got, err)
	}
	if after, err := p.asker.spec(t.Context(), k3s.Agent, testUID); err != nil || after.Hash() == before.Hash() {
		t.Errorf("k3s is not started anew: %v", err)
	}
}

// A join that cannot be had now is waited for; it is no failure.
func TestFetchJoinWaits(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, p *pair)
		want string
	}{
		{"k3s has not made its CA yet", func(t *testing.T, p *pair) { mustRemove(t, p.server.runtime.files.ServerCA()) }, "the server: k3s is still starting"},
		{"k3s does not run at the moment", func(_ *testing.T, p *pair) {
			p.server.runtime.mu.Lock()
			defer p.server.runtime.mu.Unlock()
			p.server.runtime.status.Running, p.server.runtime.refuse = false, errors.New("not now")
		}, "the server: the server does not run at the moment"},
		{"its agent cannot be reached", func(_ *testing.T, p *pair) { p.stop() }, "join information from the server: ask the agent of "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			tc.do(t, p)
			err := p.join(t)
			var pending *health.Pending
			if !errors.As(err, &pending) || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// Who asks for what he may not have is told why.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, path, body string
		edit             func(n *api.Node) // of the asker
		status           int
		want             string
	}{
		{"join: a bridge", joinPath, `{"uid":"` + testUID + `"}`, func(n *api.Node) { n.Kind = api.KindBridge }, 403, `in network_id "home"`},
		{"join: a node of another cluster", joinPath, `{"uid":"` + testUID + `"}`, func(n *api.Node) { n.NetworkID = "office" }, 403, `in network_id "home"`},
		{"join: another cluster", joinPath, `{"uid":"x"}`, nil, 409, "this server runs another cluster"},
		{"join: not JSON", joinPath, `{`, nil, 400, "decode the request"},
		{"agreement: a bridge", genesisPath, "x", func(n *api.Node) { n.Kind = api.KindBridge }, 403, `in network_id "home"`},
		{"agreement: rubbish", genesisPath, "x", nil, 400, ""},
		{"kubeconfig: a worker", kubeconfig.Path, `{"uid":"` + testUID + `"}`, nil, 403, "may not get an administrator's certificate"},
		{"kubeconfig: not JSON", kubeconfig.Path, `[`, func(n *api.Node) { n.Kind = api.KindBridge }, 400, "decode the request"},
		{"nothing there", "/v1/else", "", nil, 404, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			if tc.edit != nil {
				p.mesh.edit(func() { tc.edit(&p.mesh.nodes[1]) })
			}
			var got *api.Error
			_, err := p.asker.peers.Post(t.Context(), p.mesh.nodes[0].ID, tc.path, []byte(tc.body))
			if !errors.As(err, &got) || got.Status != tc.status || !strings.Contains(got.Message, tc.want) {
				t.Errorf("got %+v, want %d %q", err, tc.status, tc.want)
			}
		})
	}
}

// A node that runs no server says so, whatever it is asked.
func TestServing(t *testing.T) {
	for _, tc := range []struct {
		name string
		role store.Role
		do   func(*bench)
		want string
	}{
		{"a worker", store.Worker, nil, "no server runs on this node"},
		{"a server that is down", store.Server, func(b *bench) { b.machine.runtime.crash() }, "does not run at the moment"},
		{"a server with containerd away", store.Server, func(b *bench) { b.machine.runtime.down = errors.New("containerd is away") }, "containerd is away"},
		{"a server", store.Server, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, tc.role, nil)
			b.turns(t, 2)
			if tc.do != nil {
				tc.do(b)
			}
			uid, err := b.serving(t.Context())
			if tc.want == "" && (err != nil || uid != testUID) || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %q, %v; want %q", uid, err, tc.want)
			}
		})
	}
}

// The agent's own socket tells what it does.
func TestSocket(t *testing.T) {
	m, machines := newMesh(t, 1, 3)
	mc := machines[0]
	defer mc.start(t)()
	m.wait(t, "a reason to wait", func(n []api.Node) bool { return n[0].Annotations[api.NoteWaiting] != "" })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(mc.dir, "agent.sock"))
	}}}
	var got agentapi.Status
	tick, limit := time.NewTicker(10*time.Millisecond), time.After(deadline)
	defer tick.Stop()
	for got.Cluster.Waiting == "" { // told to the overlay first, then here
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("the socket tells nothing: %+v", got)
		}
		resp, err := client.Get("http://agent/api/v1/agent")
		if err != nil {
			continue // it is not open yet
		}
		raw, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close(), json.Unmarshal(raw, &got)); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
	}
	if got.Ready || got.Cluster.Phase != "forming" || len(got.Conditions) == 0 {
		t.Errorf("got %+v", got)
	}
	resp, err := client.Post("http://agent/control/v1/kubeconfig", "application/json", strings.NewReader(`{"network_id":"home"}`))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode < 400 || !strings.Contains(string(raw), `"hint"`) {
		t.Errorf("a kubeconfig without a cluster: %s %s, %v", resp.Status, raw, err)
	}
}
