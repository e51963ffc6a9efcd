package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/assess"
	"github.com/kairos-io/kairos/image/assess/host"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

func node(i byte, name, endpoint string) api.Node {
	return api.Node{ID: identity.ID{i}, Name: name, Kind: api.KindNode, Connected: endpoint != "", Endpoint: endpoint}
}

// The places to ask after an upgrade: only where a node really was, and the
// port it listens on, by its own announcement of the same address.
func TestProbes(t *testing.T) {
	laptop := node(5, "laptop", "192.0.2.5:4171")
	laptop.Kind = api.KindBridge
	n := localNode{
		nodes: []api.Node{
			node(1, "beta", "192.0.2.1:50112"), node(2, "gamma", "203.0.113.9:61000"), node(3, "gone", ""),
			laptop, node(4, "server", "[2001:db8::4]:4171"),
		},
		records: []api.Record{
			{ID: identity.ID{1}, Underlay: []string{"172.16.0.1:4171", "nonsense", "192.0.2.1:4171"}},
			{ID: identity.ID{2}, Underlay: []string{"192.168.1.9:4171"}}, // behind a translator
		},
	}
	n.agent.Cluster.Servers = []identity.ID{{4}}
	got := probes(n, []netip.Addr{netip.MustParseAddr("192.0.2.254")})
	want := []assess.Probe{
		{Name: "the gateway", Addr: netip.MustParseAddrPort("192.0.2.254:53"), Gateway: true},
		{Name: "server", Addr: netip.MustParseAddrPort("[2001:db8::4]:4171"), Server: true},
		{Name: "beta", Addr: netip.MustParseAddrPort("192.0.2.1:4171"), Own: true},
		{Name: "gamma", Addr: netip.MustParseAddrPort("203.0.113.9:61000")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestExpectIsWhatWorks(t *testing.T) {
	worker := agentapi.Status{Cluster: api.Cluster{Phase: "running", Role: "worker"}, K3sRunning: true, Ready: true}
	server := worker
	server.Cluster.Role = "server"
	starting := worker
	starting.Cluster.Phase = "starting"
	stopped := worker
	stopped.K3sRunning, stopped.Ready = false, false
	notReady := worker
	notReady.Ready = false
	tests := []struct {
		name string
		node localNode
		disk onDisk
		want assess.Expect
	}{
		{"nothing answers", localNode{overlayErr: api.ErrNotRunning, agentErr: api.ErrNotRunning}, onDisk{}, assess.Expect{}},
		{"the agent has just started, on a server", localNode{agentErr: errJustStarted}, onDisk{cluster: true, server: true},
			assess.Expect{Configured: true, Cluster: true, Server: true}},
		{"both are being restarted", localNode{overlayErr: api.ErrNotRunning, agentErr: api.ErrNotRunning}, onDisk{configured: true, cluster: true},
			assess.Expect{Configured: true, Cluster: true}},
		{"what the agent says counts more", localNode{agent: stopped}, onDisk{configured: true, cluster: true, server: true}, assess.Expect{Configured: true}},
		{"alone", localNode{nodes: []api.Node{node(1, "gone", "")}}, onDisk{}, assess.Expect{Configured: true}},
		{"meshed", localNode{nodes: []api.Node{node(1, "beta", "192.0.2.1:1")}}, onDisk{}, assess.Expect{Configured: true, Mesh: true}},
		{"worker", localNode{agent: worker}, onDisk{}, assess.Expect{Configured: true, Cluster: true, Ready: true}},
		{"server", localNode{agent: server}, onDisk{}, assess.Expect{Configured: true, Cluster: true, Ready: true, Server: true}},
		{"not ready already", localNode{agent: notReady}, onDisk{}, assess.Expect{Configured: true, Cluster: true}},
		{"just joining", localNode{agent: starting}, onDisk{}, assess.Expect{Configured: true, Ready: true}},
		{"k3s does not run already", localNode{agent: stopped}, onDisk{}, assess.Expect{Configured: true}},
		{"trouble that is there already", localNode{status: api.Status{Conditions: []api.Condition{
			{Code: "AddressConflict", Severity: "error"}, {Code: "Routes", Severity: "warning"}}}},
			onDisk{}, assess.Expect{Configured: true, Conditions: []string{"AddressConflict"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.node.expect(time.Time{}, tt.disk)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

var errJustStarted = errors.New("it has just started")

// The daemons were being restarted when `kairos upgrade` looked, and the new
// system refuses the configuration that this one takes: it must not be kept.
func TestRefusedConfigurationIsNotKept(t *testing.T) {
	refused := assess.Facts{Config: assess.ConfigRefused, ConfigWhy: "kairos.role: unknown key"}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  assess.Verdict
	}{
		{"taken by this version", map[string]string{"oem/config.yaml": freshConfig(t)}, assess.Bad},
		{"refused by this version too", map[string]string{"oem/config.yaml": "#cloud-config\nkairos:\n  rolle: x\n"}, assess.Good},
		{"none", nil, assess.Good},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				path := filepath.Join(root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			none := sockets{overlay: filepath.Join(root, "o"), agent: filepath.Join(root, "a")}
			e, err := noteExpect(t.Context(), none, host.Network{}, readDisk(root))
			if err != nil {
				t.Fatal(err)
			}
			if f := assess.Judge(&e, refused, assess.Clock{Limit: time.Minute}); f.Verdict != tt.want {
				t.Errorf("%s: %s", f.Verdict, f.Reason)
			}
		})
	}
}

func freshConfig(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	env := &cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard}
	if code := cli.Run(t.Context(), cli.Kairos(env), env, []string{"generate-token", "-o", "yaml"}); code != cli.ExitOK {
		t.Fatalf("exit code %d", code)
	}
	return out.String()
}

// What the disk says of a machine's part in a cluster.
func TestReadDisk(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state store.State
		edit  string // of the configuration
		want  onDisk
	}{
		{"no cluster yet", store.State{}, "", onDisk{configured: true}},
		{"joining", store.State{Role: store.Worker, Phase: store.Starting}, "", onDisk{configured: true}},
		{"worker", store.State{Role: store.Worker, Phase: store.Running}, "", onDisk{configured: true, cluster: true}},
		{"server", store.State{Role: store.Server, Phase: store.Running}, "", onDisk{configured: true, cluster: true, server: true}},
		{"without k3s by now", store.State{Role: store.Server, Phase: store.Running}, "  cluster: {enabled: false}\n", onDisk{configured: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			s, err := store.Open(filepath.Join(root, agentState))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = s.Load()
			oem := filepath.Join(root, "oem")
			err = errors.Join(err, s.Save(tt.state), s.Close(), os.MkdirAll(oem, 0o755),
				os.WriteFile(filepath.Join(oem, "config.yaml"), []byte(freshConfig(t)+tt.edit), 0o600))
			if err != nil {
				t.Fatal(err)
			}
			if got := readDisk(root); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestNoteExpect(t *testing.T) {
	dir := t.TempDir()
	s := sockets{overlay: filepath.Join(dir, "overlay.sock"), agent: filepath.Join(dir, "agent.sock")}
	l, err := api.ListenUnix(s.overlay, -1)
	if err != nil {
		t.Fatal(err)
	}
	overlay := api.NewServer(api.Config{View: &scene{All: []api.Node{node(1, "beta", "127.0.0.1:1")}}, Ready: func() error { return nil }})
	go func() { _ = overlay.ServeUnix(l) }() // until it is closed
	t.Cleanup(func() { _ = overlay.Close() })
	al, err := api.ListenUnix(s.agent, -1)
	if err != nil {
		t.Fatal(err)
	}
	own := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(agentapi.Status{Cluster: api.Cluster{Phase: "running", Role: "worker"}, K3sRunning: true, Ready: true})
	})}
	go func() { _ = own.Serve(al) }() // until it is closed
	t.Cleanup(func() { _ = own.Close() })
	card := assess.Card{Name: "eth0", MAC: "52:54:00:00:00:01", Up: true, Carrier: true, Setup: "configured"}
	e, err := noteExpect(t.Context(), s, host.Network{Cards: []assess.Card{card}}, onDisk{})
	if err != nil || !e.Configured || !e.Mesh || !e.Ready || e.When.IsZero() {
		t.Fatalf("got %+v, %v", e, err)
	}
	if want := []assess.NIC{{Name: "eth0", MAC: card.MAC, Carrier: true, Served: true}}; !reflect.DeepEqual(e.NICs, want) {
		t.Errorf("cards %+v", e.NICs)
	}
	if len(e.Probes) != 1 || e.Probes[0].Name != "beta" || !e.Probes[0].Answers {
		t.Errorf("the port that refuses was noted as %+v", e.Probes)
	}
}
