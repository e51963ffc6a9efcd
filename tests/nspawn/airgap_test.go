package nspawn

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/k3simage"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// newSite boots three machines that have no network but their own, and waits until
// they are a cluster. One of them was flashed with images in it, the others with the
// plain OS; nothing about images is configured.
func newSite(t *testing.T) *rig {
	t.Helper()
	r := emptyRig(t)
	root, err := run.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := r.Built.SeedFS(r.ctx, root, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for name, rootFS := range map[string]string{"node1": r.Built.RootFS, "node2": seed, "node3": r.Built.RootFS} {
		r.addBare(name, rootFS, nil)
	}
	r.cutOff()
	r.await()
	t.Logf("RESULT an air-gapped site of three machines with one seed ready after %.0f s", time.Since(began).Seconds())
	return r
}

// addBare boots a machine that has of Kubernetes what its image brings. With systems
// it has a boot loader that chooses between them and the image.
func (r *rig) addBare(name, rootFS string, systems map[string]map[string]string) *lab.Machine {
	r.Helper()
	config, err := r.Built.Bare(name, r.Config, rootFS)
	if err != nil {
		r.Fatal(err)
	}
	config = cluster.WithAddons(config)
	if systems != nil {
		config = withLoader(config, systems)
	}
	m, err := r.Lab.AddNspawn(r.ctx, config)
	if err != nil {
		r.Fatal(err)
	}
	return m
}

// cutOff leaves the machines no route but the one to each other.
func (r *rig) cutOff() {
	r.Helper()
	for _, m := range r.Lab.Machines() {
		r.eventually(time.Minute, m.Name()+" has no route out", func() error {
			out, err := m.Exec(r.ctx, "sh", "-c", "ip route del default 2>/dev/null; ip -6 route del default 2>/dev/null; ip route show default; ip -6 route show default; ip -br addr show up scope global")
			if err != nil {
				return err
			}
			if strings.Contains(out, "default") || !strings.Contains(out, "UP") {
				return fmt.Errorf("it has %q", out)
			}
			return nil
		})
	}
}

// checkSeeded looks at the images that the kubelets and k3s have by now.
func (r *rig) checkSeeded() {
	r.Helper()
	for _, m := range r.Lab.Machines() {
		r.eventually(time.Minute, m.Name()+" has all images", func() error {
			out, err := m.Exec(r.ctx, "sh", "-c", "ctr -n kairos images ls; ctr -n k8s.io images ls")
			if err != nil {
				return err
			}
			for _, want := range []string{k3s.DefaultImage, k3simage.PauseName, k3simage.EchoName, "io.cri-containerd.pinned=pinned"} {
				if !strings.Contains(out, want) {
					return fmt.Errorf("no %s in\n%s", want, out)
				}
			}
			return nil
		})
	}
	if out := r.exec("node2", "ls", "/usr/lib/kairos/images/blobs/sha256"); strings.Count(out, "\n") < 9 {
		r.Errorf("the seed's OS carries %q", out)
	}
	if out := r.exec("node1", "sh", "-c", "ls /usr/lib/kairos/images 2>&1 || :"); !strings.Contains(out, "No such file") {
		r.Errorf("the plain OS carries images: %q", out)
	}
}
