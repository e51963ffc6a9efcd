package nspawn

import (
	"regexp"
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/assess"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

const systemUnits = "usr/lib/systemd/system/"

// impatient is a system that has to be good soon: what it does bring has to be there by
// then on a busy machine, or the wrong reason is told.
func impatient(files map[string]string) map[string]string {
	files["etc/kairos/90-test.yaml"] = "#cloud-config\nkairos:\n  os: {health_timeout: 90s}\n"
	return files
}

// badSystems are wrong each in its own way, and what is said of each after how many
// boots. A verdict ends the trial at once; where there is none it is tried again.
var badSystems = []struct {
	name  string
	files map[string]string
	boots int
	why   string // of the verdict, a regular expression; empty: there is none
}{
	{"agent-exits", impatient(map[string]string{systemUnits + "kairos-agent.service.d/90-test.conf": "[Service]\nExecStart=\nExecStart=/bin/false\n"}),
		1, `^after 1m30s still waiting for the agent to answer`},
	{"no-network", impatient(map[string]string{"usr/lib/systemd/network/00-test.network": "[Match]\nType=ether\n[Link]\nUnmanaged=yes\n"}),
		1, `^after 1m30s still waiting for .*: the network card lan\d`},
	{"no-check", map[string]string{systemUnits + "kairos-boot-check.service.d/99-test.conf": "[Service]\nExecStart=\nExecStart=/nonexistent\n"},
		3, ""},
}

// A machine gives up a system that works only in part, says why, and runs again the
// one that worked.
func TestBadSystemsAreGivenUp(t *testing.T) {
	t.Parallel() // most of it is waiting for what does not come
	r := emptyRig(t)
	r.Config += "\n  cluster: {enabled: false}\n"
	var machines []trial
	for _, bad := range badSystems {
		config, err := r.Built.Bare(bad.name, r.Config, r.Built.RootFS)
		if err != nil {
			t.Fatal(err)
		}
		config.RealCard = true
		m, err := r.Lab.AddNspawn(r.ctx, withLoader(config, map[string]map[string]string{bad.name: bad.files}))
		if err != nil {
			t.Fatal(err)
		}
		machines = append(machines, trial{m, r})
	}
	for _, m := range machines {
		r.isGoodAndMeets(m.Machine, len(machines)-1)
	}
	began := time.Now()
	for i, m := range machines {
		had := m.has(assess.Expect{Mesh: true})
		if len(had.NICs) != 1 || !had.NICs[0].Served || !had.NICs[0].Carrier || len(had.NICs[0].Addrs) == 0 {
			t.Fatalf("%s has the network cards %+v, want one that is served", m.Name(), had.NICs)
		}
		m.try(badSystems[i].name, had)
	}
	for i, m := range machines {
		bad := badSystems[i]
		m.fallsBack(bad.name, bad.boots)
		said := m.said(bad.name)
		if bad.why == "" && said.Verdict != "" || bad.why != "" && (said.Verdict != assess.Bad || !regexp.MustCompile(bad.why).MatchString(said.Reason)) {
			t.Errorf("%s: %q, because %q; want %q", bad.name, said.Verdict, said.Reason, bad.why)
		}
		t.Logf("RESULT %s: given up, and back, after %.0f s", bad.name, time.Since(began).Seconds())
	}
	for _, m := range machines {
		r.isGoodAndMeets(m.Machine, len(machines)-1)
	}
}

// isGoodAndMeets waits until a machine's boot was found good and it is connected to
// that many others.
func (r *rig) isGoodAndMeets(m *lab.Machine, others int) {
	r.Helper()
	r.eventually(toConfigured, m.Name()+" is good and meets the others", func() error {
		if _, err := m.Exec(r.ctx, "systemctl", "is-active", "kairos-boot-check"); err != nil {
			return err
		}
		return cluster.Meets(r.ctx, m, others)
	})
}

const neverReady = "never-ready"

// testNeverReady: the fourth machine, a worker, is given a system under which its
// node would never be ready, and is the worker that it was afterwards.
func (r *rig) testNeverReady() {
	m := trial{r.machine("node4"), r}
	m.try(neverReady, m.has(assess.Expect{Mesh: true, Cluster: true, Ready: true}))
	m.fallsBack(neverReady, 1)
	// Which of the two depends on whether k3s has just ended.
	if said := m.said(neverReady); said.Verdict != assess.Bad || !regexp.MustCompile("waiting for (k3s to run|Kubernetes to call this node ready)").MatchString(said.Reason) {
		r.Errorf("%q, because %q", said.Verdict, said.Reason)
	}
	r.await()
	if v := cluster.Look(r.ctx, m.Machine); v.Role != "worker" {
		r.Errorf("it was a worker and is a %q", v.Role)
	}
	r.checkNodes()
}
