package node

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

func TestMain(m *testing.M) {
	bootPoll, bootSettle, leavePoll = 20*time.Millisecond, 60*time.Millisecond, time.Millisecond
	askPoll, askWait = 10*time.Millisecond, 200*time.Millisecond
	osSystem.DevOf, osNetwork = fakeDevices, fakeNetwork
	testscript.Main(m, map[string]func(){
		"kairos":       func() { os.Exit(cli.Main(cli.Kairos)) },
		"kairos-agent": func() { os.Exit(cli.Main(Program(os.Args[1:]))) },
		"talker":       func() { os.Exit(cli.Main(talker)) },
	})
}

// talker is a program that makes a file, says more than a pipe holds, and removes
// the file again.
func talker(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "talker", Args: cobra.ExactArgs(1)}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := os.WriteFile(args[0], nil, 0o600); err != nil {
			return err
		}
		for range 10000 {
			env.Say("%s", strings.Repeat("x", 100))
		}
		return os.Remove(args[0])
	}
	return cmd
}

// TestScripts runs testdata/*.txtar: what a person types, and what comes back.
// They start no network; besides testscript's own commands they have
//
//	fake-overlay SOCKET SCENE   serves an overlay's API on a unix socket, or an abstract
//	                            one (@PATH); SCENE is one of those below or a JSON
//	                            file with status and nodes
//	fake-agent SOCKET DIR       serves an agent's socket: the files of DIR are its
//	                            answers (a path with _ for /, such as GET_api_v1_agent),
//	                            and what is asked is appended to DIR/asked
//	fake-machine DIR VERSION    makes DIR the root of a machine that was flashed
//	make-release LAYOUT VERSION [K3S] writes a release into an OCI layout
//	sign-release LAYOUT VERSION FILE   signs it; the public key goes into FILE
//	serve-layout LAYOUT         serves it as a registry and sets $REGISTRY to its host
//	take-port                   listens on a loopback port and sets $PORT to it
//	code N PROGRAM ARGS...      runs a program that must exit with N
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("NETWORK_TOKEN", "")
			env.Vars = env.Vars[:len(env.Vars)-1] // unset, not empty
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fake-overlay": fakeOverlay,
			"fake-agent":   fakeAgent,
			"fake-machine": fakeMachine,
			"make-release": makeRelease,
			"sign-release": signRelease,
			"serve-layout": serveLayout,
			"take-port":    takePort,
			"code":         exitCode,
		},
	})
}

func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program args...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if want := args[0]; string(rune('0'+got)) != want {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}

func takePort(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv("PORT", port)
}

// fakeOverlay serves one of the scenes below.
func fakeOverlay(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: fake-overlay socket scene")
	}
	view, ok := scenes()[args[1]]
	if !ok {
		view = &scene{}
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), view))
	}
	path, abstract := strings.CutPrefix(args[0], "@")
	listen := func() (net.Listener, error) { return api.ListenUnix(filepath.Clean(ts.MkAbs(path)), -1) }
	if abstract {
		listen = func() (net.Listener, error) { return api.ListenAbstract(path) }
	}
	l, err := listen()
	ts.Check(err)
	server := api.NewServer(api.Config{
		View: view, Ready: func() error { return nil }, Extra: view.extra,
	})
	done := make(chan error, 1)
	go func() {
		if abstract {
			done <- server.ServeAbstract(l)
			return
		}
		done <- server.ServeUnix(l)
	}()
	ts.Defer(func() {
		ts.Check(server.Close())
		ts.Check(<-done)
	})
}

// scene is an overlay that only answers.
type scene struct {
	Own       api.Status   `json:"status"`
	All       []api.Node   `json:"nodes"`
	Announced []api.Record `json:"records"`
	cluster   *api.Cluster
	extra     map[string]http.Handler
}

func (s *scene) Status() api.Status { return s.Own }
func (s *scene) Nodes(context.Context, uint64) api.NodeList {
	return api.NodeList{Revision: 1, Nodes: s.All}
}
func (s *scene) Peers() []api.Peer     { return nil }
func (s *scene) Records() []api.Record { return s.Announced }
func (s *scene) Cluster() (api.Cluster, error) {
	if s.cluster == nil {
		return api.Cluster{}, &api.Error{Message: "there is no cluster yet", Status: http.StatusNotFound}
	}
	return *s.cluster, nil
}

func scenes() map[string]*scene {
	self := api.Node{
		ID: identity.ID{1}, Name: "laptop-aeaaaa", Kind: api.KindBridge, NetworkID: "kairos", Version: "v1", Self: true,
		Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.9"), netip.MustParseAddr("fd00::9")},
	}
	server := api.Node{
		ID: identity.ID{2}, Name: "alpha-aiaaaa", Kind: api.KindNode, NetworkID: "kairos", Version: "v1", Connected: true, Path: "quic",
		Endpoint: "192.0.2.7:4171", RTT: api.Duration(1234 * time.Microsecond), Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.1")},
		Annotations: map[string]string{api.NoteRole: "server", api.NoteReady: "true", api.NoteKubernetes: "v1.35.8+k3s1"},
	}
	near, narrow := server, server
	near.ID, near.Name, near.Path, near.Why, near.MTU = identity.ID{4}, "delta-aqaaaa", "direct", "udp probe answered", 1420
	narrow.ID, narrow.Name, narrow.Path, narrow.Why, narrow.MTU, narrow.Loss = identity.ID{5}, "eps-auaaaa", "direct", "udp probe answered", 1340, 3
	ago := api.Duration(1200 * time.Millisecond)
	near.Paths = []api.Path{
		{Kind: "direct", Local: netip.MustParseAddr("192.0.2.1"), Remote: "192.0.2.7:4171", State: "alive", Why: "it is faster", RTT: near.RTT, MTU: 1420, Heard: &ago, Chosen: true},
		{Kind: "direct", Remote: "198.51.100.7:4171", Via: identity.ID{2}, State: "candidate"},
		{Kind: "quic", Remote: "192.0.2.7:4171", State: "alive", Why: "the last resort", MTU: 1420},
	}
	server.Why, server.MTU = "no keys agreed yet", 1420
	silent := api.Node{
		ID: identity.ID{3}, Name: "beta-amaaaa", Kind: api.KindNode, NetworkID: "kairos", LastSeen: api.Duration(90 * time.Second),
		Addresses:   []netip.Addr{netip.MustParseAddr("10.77.0.2")},
		Annotations: map[string]string{api.NoteWaiting: "the API of alpha \x1b[31m(tricky)"},
	}
	status := api.Status{ID: self.ID, Name: self.Name, Kind: self.Kind, NetworkID: "kairos", Interface: "kairos0", Declared: 3, Quorum: 2}
	alone := status
	alone.Waiting = "another machine with the same token on the local network"
	alone.Conditions = []api.Condition{{Code: "routes", Severity: "warning", Text: "pods are not reachable from here"}}
	return map[string]*scene{
		"alone":   {Own: alone, All: []api.Node{self}},
		"waiting": {Own: status, All: []api.Node{self, server, silent}},
		"running": {Own: status, All: []api.Node{server, near, narrow, self}, cluster: &api.Cluster{NetworkID: "kairos", UID: "u", Phase: "running"},
			extra: map[string]http.Handler{"kubeconfig": answer(http.StatusOK, `{"kubeconfig":"apiVersion: v1\n"}`)}},
		"refusing": {Own: status, All: []api.Node{self},
			extra: map[string]http.Handler{"kubeconfig": answer(http.StatusNotFound, `{"error":"there is no cluster \"home\" yet: 1 more node","hint":"see kairos status"}`)}},
		"empty": {Own: status, extra: map[string]http.Handler{"kubeconfig": answer(http.StatusOK, `{}`)}},
	}
}

func answer(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}
