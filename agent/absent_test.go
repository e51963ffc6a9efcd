package agent

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// A machine that is on the network only (fault A7), with role: master as one
// config.yaml for all may well have it, is not waited for by the others.
func TestDisabledMasterIsNotWaitedFor(t *testing.T) {
	m, machines := newMesh(t, 3, 2)
	cfg := machines[0].config()
	cfg.Cluster.Enabled, cfg.Role = false, "master"
	defer machines[0].startAs(t, cfg)()
	m.wait(t, "the word that it is disabled", func(n []api.Node) bool { return n[0].Annotations[api.NotePhase] == "disabled" })
	for _, mc := range machines[1:] {
		defer mc.start(t)()
	}
	m.wait(t, "a cluster of the others", func(nodes []api.Node) bool {
		s, w, uids := allReady(nodes)
		return s == 1 && w == 1 && len(uids) == 1
	})
}

// It does not make up a quorum either: the machines that agree must be there.
func TestDisabledMachineIsNotCounted(t *testing.T) {
	m, machines := newMesh(t, 2, 2)
	cfg := machines[0].config()
	cfg.Cluster.Enabled = false
	defer machines[0].startAs(t, cfg)()
	m.wait(t, "the word that it is disabled", func(n []api.Node) bool { return n[0].Annotations[api.NotePhase] == "disabled" })
	defer machines[1].start(t)()
	m.wait(t, "the reason to wait", func(n []api.Node) bool {
		return strings.Contains(n[1].Annotations[api.NoteWaiting], "need 2 machines of 2 to agree, see 1")
	})
}

// The agent's directory is lost while the overlay keeps key and address (fault A8): the
// machine does not vote again, says so, and joins the cluster that another can prove.
func TestLostAgentDirectoryDoesNotVoteAgain(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	mustRemove(t, filepath.Join(b.machine.dir, "state"))
	mustRemove(t, b.machine.runtime.files.Dir)
	if err := b.machine.runtime.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.restart(t, nil)
	b.turns(t, 3)
	d, err := b.voting.get()
	if d == nil || !d.Status().Abstains {
		t.Fatalf("votes again: %v", err)
	}
	mustContain(t, "condition", b.condition(health.CodeNeedsOperator), "error: this machine may have voted before and forgot it", "kairos reset")
	if n := b.notes(); n["votes"] != "no" || n["cluster.uid"] != "" {
		t.Errorf("tells %v", n)
	}
	// So it stays, whatever is restarted.
	b.restart(t, nil)
	b.turns(t, 2)
	if d, _ := b.voting.get(); !d.Status().Abstains || b.starts() != 1 {
		t.Errorf("%+v, %d starts", d.Status(), b.starts())
	}
}
