package console

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
)

// fakeOverlay only answers.
type fakeOverlay struct {
	status  api.Status
	nodes   []api.Node
	cluster *api.Cluster
}

func (f *fakeOverlay) Status() api.Status { return f.status }
func (f *fakeOverlay) Nodes(context.Context, uint64) api.NodeList {
	return api.NodeList{Revision: 7, Nodes: f.nodes}
}
func (f *fakeOverlay) Peers() []api.Peer     { return nil }
func (f *fakeOverlay) Records() []api.Record { return nil }
func (f *fakeOverlay) Cluster() (api.Cluster, error) {
	if f.cluster == nil {
		return api.Cluster{}, &api.Error{Message: `no node of network_id "home" is known here`, Status: http.StatusNotFound}
	}
	return *f.cluster, nil
}

// serve returns a client of f; of nothing where f is nil.
func serve(t *testing.T, f *fakeOverlay) *api.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	client := api.NewClient(socket)
	t.Cleanup(client.CloseIdle)
	if f == nil {
		return client
	}
	l, err := api.ListenUnix(socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	server := api.NewServer(api.Config{View: f, Ready: func() error { return nil }})
	done := make(chan error, 1)
	go func() { done <- server.ServeUnix(l) }()
	t.Cleanup(func() {
		client.CloseIdle()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return client
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func configured(t *testing.T, root string) token.Token {
	t.Helper()
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.NetworkToken, c.NetworkID = tok, "home"
	if err := config.Apply(c, filepath.Join(root, "run/kairos/config")); err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestLookAtAWorkingMachine(t *testing.T) {
	root := t.TempDir()
	tok := configured(t, root)
	put(t, root, "proc/sys/kernel/hostname", "kairos-0123\n")
	// The key and the fingerprint are those of ssh-keygen -l.
	put(t, root, "etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIrxvLgmCDDbxPMAMrVDwdmIPTmUEgVoa0JTnO3yMkVq root@x\n")
	put(t, root, "etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAA root@x\n")
	put(t, root, "home/ada/.ssh/authorized_keys", "# mine\nssh-ed25519 AAAA ada\n")
	put(t, root, "home/bob/.ssh/authorized_keys", "\n# none\n")
	put(t, root, "root/.ssh/authorized_keys", `no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="echo no" ssh-ed25519 AAAA ada`+"\n")
	overlay := &fakeOverlay{
		status: api.Status{Interface: "mesh0", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.1")}},
		nodes: []api.Node{
			{ID: identity.ID{1}, Self: true, Annotations: map[string]string{api.NoteRole: "server", api.NoteWaiting: "containerd"}},
			{ID: identity.ID{2}, Connected: true}, {ID: identity.ID{3}},
		},
		cluster: &api.Cluster{Waiting: "something else"},
	}
	f := Machine{Root: root, Version: "v1", Overlay: serve(t, overlay)}.Look(t.Context())
	if f.Hostname != "kairos-0123" || !f.Configured || f.Cluster != "home" || f.Role != "server" || f.Waiting != "containerd" {
		t.Errorf("got %+v", f)
	}
	if f.Overlay == nil || f.Overlay.Connected != 1 || f.Overlay.Known != 2 || f.Overlay.Interface != "mesh0" {
		t.Errorf("overlay %+v", f.Overlay)
	}
	if !slices.Equal(f.HostKeys, []string{"SHA256:24e5KGB1gw4ir7Mf9Y2xYdVBpLUkMbqS+ZKuXXT0WKk (ED25519)"}) {
		t.Errorf("host keys %q", f.HostKeys)
	}
	if !slices.Equal(f.Logins, []string{"ada"}) {
		t.Errorf("log in: %q", f.Logins)
	}
	screen := Render(f)
	if strings.Contains(screen, tok.Reveal()) || !strings.Contains(screen, fingerprint(tok.Keys().Genesis)) {
		t.Errorf("the token is there, or the fingerprint is not:\n%s", screen)
	}
}

func TestLookWhileThingsAreMissing(t *testing.T) {
	root := t.TempDir()
	m := Machine{Root: root, Version: "v1", Overlay: serve(t, nil)}
	if f := m.Look(t.Context()); f.Configured || f.Overlay != nil || len(f.Problems) > 0 || f.Waiting != "" {
		t.Errorf("a machine without anything: %+v", f)
	}

	put(t, root, "run/cloud-init/enabled", "")
	if f := m.Look(t.Context()); f.Waiting != "waiting for cloud-init to read a configuration" {
		t.Errorf("while cloud-init looks for one: %+v", f)
	}
	put(t, root, "run/cloud-init/result.json", "{}")
	if f := m.Look(t.Context()); f.Waiting != "" {
		t.Errorf("cloud-init found none: %+v", f)
	}
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	put(t, root, "oem/a.yaml", "#cloud-config\nkairos: {network_token: "+tok.Reveal()+"}\n")
	if f := m.Look(t.Context()); f.Waiting != "waiting for kairos-config to check the configuration" || len(f.Problems) > 0 {
		t.Errorf("before it is merged: %+v", f)
	}

	put(t, root, "oem/a.yaml", "#cloud-config\nkairos:\n  rolle: worker\n")
	f := m.Look(t.Context())
	if len(f.Problems) != 2 || f.Problems[0] != "/oem/a.yaml:2: kairos.network_token: is missing: make one with `kairos generate-token` and use it on every machine" ||
		f.Problems[1] != "/oem/a.yaml:3: kairos.rolle: unknown key; did you mean role?" {
		t.Errorf("problems %q", f.Problems)
	}

	notes := agentapi.Notes{Root: root}
	if err := notes.Set("kairos-intake", agentapi.Problem, []string{"/efi/config.yaml:1: bad"}); err != nil {
		t.Fatal(err)
	}
	if err := notes.Set("kairos-fetch", agentapi.Waiting, []string{"waiting for http://a/"}); err != nil {
		t.Fatal(err)
	}
	if err := notes.Set("kairos-x", agentapi.Note, []string{"one", "two"}); err != nil {
		t.Fatal(err)
	}
	if f = m.Look(t.Context()); f.Problems[0] != "/efi/config.yaml:1: bad" || f.Waiting != "waiting for http://a/" || !slices.Equal(f.Notes, []string{"one", "two"}) {
		t.Errorf("notes of units: %+v", f)
	}
	if err := notes.Set("kairos-x", agentapi.Note, nil); err != nil {
		t.Fatal(err)
	}
	if err := notes.Set("kairos-x", agentapi.Note, nil); err != nil {
		t.Errorf("taking back twice: %v", err)
	}
	if f = m.Look(t.Context()); len(f.Notes) > 0 {
		t.Error("a note that was taken back is told")
	}
}

func TestWaitingForTheAgent(t *testing.T) {
	root := t.TempDir()
	configured(t, root)
	f := Machine{Root: root, Overlay: serve(t, &fakeOverlay{})}.Look(t.Context())
	if f.Waiting != `no node of network_id "home" is known here` {
		t.Errorf("waiting for %q", f.Waiting)
	}
	f = Machine{Root: root, Overlay: serve(t, &fakeOverlay{status: api.Status{Waiting: "a connection"}})}.Look(t.Context())
	if f.Waiting != "waiting for a connection" {
		t.Errorf("waiting for %q", f.Waiting)
	}
}
