package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/agent/trust"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// A cluster's server makes its issuer's key and the record that names it, once. What is
// damaged is told and never made anew: others may have been told of the first.
func TestFounderIsMadeOnce(t *testing.T) {
	b := newBench(t, store.Server, nil)
	b.settled(t)
	file := filepath.Join(b.opt.StateDir, founderFile)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := trust.Open(raw, b.cfg.NetworkToken.Keys().NetID)
	if err != nil {
		t.Fatal(err)
	}
	key, created, err := identity.LoadOrCreate(filepath.Join(b.opt.StateDir, issuerFile), nil)
	ca, caErr := b.opt.Files.CAKey()
	if err != nil || caErr != nil || created || f.Issuer != key.ID() || f.CA != ca || genesis.UID(f.UID).String() != testUID {
		t.Errorf("it says %+v of issuer %s: %v, %v", f, key.ID(), err, caErr)
	}
	b.restart(t, nil)
	b.settled(t)
	if again, err := os.ReadFile(file); err != nil || !slices.Equal(again, raw) {
		t.Errorf("made anew: %v", err)
	}

	if err := os.WriteFile(file, raw[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	b.turns(t, 3)
	mustContain(t, "condition", b.condition(health.CodeNeedsOperator), "error: read the founder record: 20 bytes: not a founder record")
	if again, err := os.ReadFile(file); err != nil || len(again) != 20 {
		t.Errorf("made anew: %v", err)
	}

	worker := newBench(t, store.Worker, nil)
	worker.settled(t)
	if _, err := os.Stat(filepath.Join(worker.opt.StateDir, issuerFile)); err == nil {
		t.Error("a worker has an issuer's key")
	}
}

// The issuer's key goes to the servers that the agreement names, and to nobody else.
func TestIssuerGoesToServersOnly(t *testing.T) {
	p := newPair(t)
	for end := time.Now().Add(deadline); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(p.server.dir, "state", founderFile)); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	ask := func() joinAnswer {
		t.Helper()
		body, err := json.Marshal(joinRequest{UID: testUID})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := p.asker.peers.Post(t.Context(), p.mesh.nodes[0].ID, joinPath, body)
		if err != nil {
			t.Fatal(err)
		}
		var answer joinAnswer
		if err := json.Unmarshal(raw, &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if got := ask(); got.Issuer != nil || got.Founder != nil || got.Token == "" {
		t.Errorf("a worker is given a key of %d bytes, a record of %d", len(got.Issuer), len(got.Founder))
	}
	p.stop()
	st := store.State{NetworkID: "home", Phase: store.Running, Role: store.Server, ClusterUID: testUID, Epoch: 1,
		Servers: []identity.ID{p.mesh.nodes[0].ID, p.mesh.nodes[1].ID}}
	saveState(t, p.server, st)
	p.mesh.edit(func() { p.mesh.nodes[0].Annotations = nil })
	t.Cleanup(p.server.start(t))
	p.mesh.wait(t, "the server again", func(n []api.Node) bool { return n[0].Annotations[api.NoteServer] != "" })
	got := ask()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, issuerFile), got.Issuer, 0o600); err != nil {
		t.Fatal(err)
	}
	key, created, err := identity.LoadOrCreate(filepath.Join(dir, issuerFile), nil)
	f, openErr := trust.Open(got.Founder, p.asker.cfg.NetworkToken.Keys().NetID)
	if err != nil || openErr != nil || created || f.Issuer != key.ID() {
		t.Errorf("another server is given %+v: %v, %v", f, err, openErr)
	}
}
