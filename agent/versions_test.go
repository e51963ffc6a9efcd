package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/store"
)

// The next minor version of Kubernetes comes with a system on trial, goes with it, comes
// again and is kept. What the earlier one had is there when it is back, and later no more.
func TestMinorVersionOnTrial(t *testing.T) {
	const v35, v36, v38 = "rancher/k3s:v1.35.8-k3s1", "rancher/k3s:v1.36.0-k3s1", "rancher/k3s:v1.38.0-k3s1"
	b := newBench(t, store.Server, func(c *config.Config) { c.K3s.Image = v35 })
	b.settled(t)
	data := filepath.Join(b.machine.runtime.files.Dir, "server", "db", "state.db")
	has := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(data); err != nil || string(got) != want {
			t.Errorf("the data is %q, want %q: %v", got, want, err)
		}
	}
	writes := func(text string) {
		t.Helper()
		if err := os.WriteFile(data, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// boots has another system start, on trial or not, which wants that k3s.
	boots := func(image string, trial bool) {
		t.Helper()
		b.restart(t, func(c *config.Config) { c.K3s.Image = image })
		b.opt.Trial = func() bool { return trial }
		b.turns(t, 4)
	}
	runs := func(image string) {
		t.Helper()
		b.disturb(func(f *fakeRuntime) {
			if f.spec.Image != image || !f.status.Running {
				t.Errorf("%s runs: %v, want %s", f.spec.Image, f.status.Running, image)
			}
		})
	}
	kept := func() bool {
		v, err := b.opt.Files.Versions()
		if err != nil {
			t.Fatal(err)
		}
		return v.Kept != nil
	}

	writes("of 35")
	boots(v36, true)
	runs(v36)
	has("of 35")
	writes("of 36")
	b.turns(t, 3)
	if !kept() {
		t.Error("the copy was dropped during the trial")
	}
	boots(v35, false)
	runs(v35)
	has("of 35")
	if kept() {
		t.Error("the copy is still there, and the data is what it was")
	}

	boots(v36, true)
	writes("of 36 again")
	boots(v36, false)
	runs(v36)
	if kept() {
		t.Error("the copy is still there after the trial")
	}
	// Back or two forth at once: what runs goes on, and a person is told.
	for image, want := range map[string]string{
		v35: "warning: Kubernetes v1.36.0+k3s1 has this cluster's data, and Kubernetes v1.35.8+k3s1 must not get it: it is an earlier minor version",
		v38: "warning: Kubernetes v1.36.0+k3s1 has this cluster's data, and Kubernetes v1.38.0+k3s1 must not get it: no minor version may be left out",
	} {
		boots(image, false)
		runs(v36)
		if got := b.condition(health.CodeVersion); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", image, got)
		}
	}
	has("of 36 again")
}
