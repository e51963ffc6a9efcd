package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// Files that are changed under a running agent: what is wrong with them is told with
// file, line and key while everything goes on; what is right is put in force, and k3s,
// which it concerns, is started anew by the next agent.
func TestConfigurationIsAFactOfEveryTurn(t *testing.T) {
	b := newBench(t, store.Server, nil)
	root := t.TempDir()
	place := config.Place{Root: root, Dir: filepath.Join(root, "run/kairos/config")}
	write := func(more string) {
		t.Helper()
		mkdir(t, filepath.Join(root, "oem"))
		text := "#cloud-config\nkairos:\n  network_token: " + b.machine.token.Reveal() + "\n  network_id: home\n" + more
		if err := os.WriteFile(filepath.Join(root, "oem/a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	if _, err := place.Merge(true); err != nil {
		t.Fatal(err)
	}
	b.files = newConfiguration(place)
	b.settled(t)
	for _, tt := range []struct {
		name, more, condition string
		restarts              bool
	}{
		{"as it was", "", "", false},
		{"a typo", "  rolle: worker\n", "/oem/a.yaml:5: kairos.rolle: unknown key; did you mean role?", false},
		{"corrected", "", "", false},
		{"what cannot change", "  overlay: {cidr: 10.99.0.0/16}\n", "/oem/a.yaml:5: kairos.overlay.cidr: cannot change", false},
		{"what can", "  k3s: {args: [--debug]}\n", "", true},
	} {
		write(tt.more)
		if got := b.lookAtConfiguration(); got != tt.restarts {
			t.Errorf("%s: restarts: %v", tt.name, got)
		}
		b.turns(t, 1)
		got := b.condition(health.CodeConfig)
		if (got == "") != (tt.condition == "") || !strings.Contains(got, tt.condition) || strings.Contains(got, b.machine.token.Reveal()) {
			t.Errorf("%s: the condition is %q", tt.name, got)
		}
		if told := strings.Join(agentapi.Notes{Root: root}.All(agentapi.Problem), ""); (told == "") != (tt.condition == "") || !strings.Contains(told, tt.condition) {
			t.Errorf("%s: the console has %q", tt.name, told)
		}
		if b.starts() != 1 || b.waiting() != "" {
			t.Errorf("%s: k3s was started %d times; %s", tt.name, b.starts(), b.waiting())
		}
	}
	if log := strings.Join(b.journal.lines(), "\n"); !strings.Contains(log, "k3s.args") || !strings.Contains(log, "kairos-agent, k3s") {
		t.Errorf("which restarts is not told: %s", log)
	}
	cfg, err := config.LoadFile(filepath.Join(place.Dir, config.KairosFile))
	if err != nil {
		t.Fatal(err)
	}
	b.restart(t, func(c *config.Config) { *c = cfg })
	b.files = newConfiguration(place)
	b.turns(t, 3)
	if b.lookAtConfiguration() {
		t.Error("restarts again and again")
	}
	if b.starts() != 2 {
		t.Errorf("the next agent started k3s %d times", b.starts()-1)
	}
}

// A run ends by itself, and without an error, once another configuration is in force.
func TestRunEndsWithAnotherConfiguration(t *testing.T) {
	m, machines := newMesh(t, 1, 3)
	mc, root := machines[0], t.TempDir()
	place := config.Place{Root: root, Dir: filepath.Join(root, "run/kairos/config")}
	write := func(more string) {
		t.Helper()
		mkdir(t, filepath.Join(root, "oem"))
		text := "#cloud-config\nkairos:\n  network_token: " + mc.token.Reveal() + "\n  network_id: home\n" + more
		if err := os.WriteFile(filepath.Join(root, "oem/a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	if _, err := place.Merge(false); err != nil {
		t.Fatal(err)
	}
	a := mc.agent(t, mc.config())
	a.files = newConfiguration(place)
	done := make(chan error, 1)
	go func() { done <- a.run(t.Context()) }()
	m.wait(t, "a first turn", func(n []api.Node) bool { return n[0].Annotations[api.NoteWaiting] != "" })
	write("  os: {health_timeout: 20m}\n")
	m.edit(func() { m.nodes[0].Name = "woken" }) // sooner than the loop would look
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(deadline):
		t.Error("it goes on with the earlier one")
	}
	a.peers.CloseIdle()
	a.overlay.CloseIdle()
	if err := a.store.Close(); err != nil {
		t.Error(err)
	}
}
