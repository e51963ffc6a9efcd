package nspawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/k3simage"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// debians is a system that has Debian's containerd, as those had that came before the
// image brought one of its own: a machine that goes back to it has its data as the newer
// one left them.
const debians = "debians-containerd"

const debiansDir = "usr/lib/debians-containerd/"

const debiansUnit = `[Service]
Environment=PATH=/` + debiansDir + `:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=
ExecStart=/` + debiansDir + `containerd --config=/` + debiansDir + `config.toml
`

const debiansConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + builder.Pause + `"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
`

// debiansContainerd returns the files of that system.
func (r *rig) debiansContainerd() map[string]string {
	r.Helper()
	root, err := run.RepoRoot()
	if err != nil {
		r.Fatal(err)
	}
	dir := filepath.Join(root, "build", "cache", "containerd-"+builder.Suite)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		tmp := fmt.Sprintf("%s.%d.tmp", dir, os.Getpid())
		defer os.RemoveAll(tmp)
		err := k3simage.Extract(r.ctx, tmp, "containerd")
		if err == nil {
			err = os.Rename(tmp, dir)
		}
		if err != nil {
			r.Fatal(err)
		}
	} else if err != nil {
		r.Fatal(err)
	}
	files := map[string]string{
		systemUnits + "containerd.service.d/50-debian.conf": debiansUnit,
		debiansDir + "config.toml":                          debiansConfig,
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2"} {
		program, err := os.ReadFile(filepath.Join(dir, "usr", "bin", name))
		if err != nil {
			r.Fatal(err)
		}
		files[debiansDir+name] = string(program)
	}
	return files
}

// testOlderContainerd: a worker goes back to a system with an older containerd, and then
// on again. Its images, of which there are no others here, and its pods are there each
// time.
func (r *rig) testOlderContainerd() {
	m := trial{r.machine("node4"), r}
	images := r.imagesOf(m.Name())
	manifest := filepath.Join(r.Lab.Dir(), "stays.yaml")
	if err := os.WriteFile(manifest, []byte(r.pod("stays", m.Name())), 0o600); err != nil {
		r.Fatal(err)
	}
	r.kubectl("apply", "-f", manifest)
	r.kubectl("wait", "--for=condition=Ready", "--timeout=90s", "pod/stays")
	for i, system := range []struct{ name, version string }{{debians, " 1.7."}, {"v1", " v2.3."}, {debians, " 1.7."}, {"v1", " v2.3."}} {
		r.write(m.Name(), filepath.Join(bootEntries, slots.FileName(uint64(10+i), 0)), system.name)
		began := time.Now()
		if err := m.Reboot(r.ctx); err != nil {
			r.Fatal(err)
		}
		r.eventually(toReady, "the pod runs again, with containerd"+system.version, func() error {
			got, err := cluster.Kubectl(r.ctx, r.machine(r.server()), "get", "pod", "stays", "-o",
				"jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
			if want := fmt.Sprint(i+1, " true"); err == nil && got != want {
				err = fmt.Errorf("its restarts, and whether it is ready: %s, want %s", got, want)
			}
			return err
		})
		r.Logf("RESULT a pod runs again %.0f s after a reboot into %s", time.Since(began).Seconds(), system.name)
		if out := r.exec(m.Name(), "ctr", "version"); !strings.Contains(out[strings.Index(out, "Server:"):], system.version) {
			r.Errorf("%s runs%s", system.name, out)
		}
		if now := r.imagesOf(m.Name()); now != images {
			r.Errorf("%s has the images\n%s, before\n%s", system.name, now, images)
		}
		if got := r.kubectl("exec", "stays", "--", "/echo", "get", "http://"+r.podIP("one")+":8080/"); !strings.Contains(got, "host=one") {
			r.Errorf("%s: the pod reaches another: %q", system.name, got)
		}
	}
	r.await()
	r.kubectl("delete", "pod", "stays")
}

// imagesOf are the names and digests of a machine's images, a line each.
func (r *rig) imagesOf(machine string) string {
	r.Helper()
	return r.exec(machine, "sh", "-c", "for ns in kairos k8s.io; do ctr -n $ns images ls | awk -v ns=$ns '{print ns, $1, $3}'; done | sort")
}
