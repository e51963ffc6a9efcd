package nspawn

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
	"github.com/kairos-io/kairos/tests/lab/docker"
)

// testDocker is a laptop with Docker and nothing of ours: two commands of README,
// as they are written there, give a kubeconfig that works.
func (r *rig) testDocker() {
	laptop, err := r.Lab.AddNetns(r.ctx, "docker")
	if err != nil {
		r.Fatal(err)
	}
	defer laptop.Remove(r.ctx)
	root, err := run.RepoRoot()
	if err != nil {
		r.Fatal(err)
	}
	image := filepath.Join(root, "build", "cli")
	if _, err := run.Do(r.ctx, run.Cmd{Args: []string{"go", "run", "./image", "cli", "--out", image}, Dir: root}); err != nil {
		r.Fatal(err)
	}
	engine, err := docker.Start(r.ctx, laptop, r.Output())
	if err != nil {
		r.Fatal(err)
	}
	if err := engine.Load(r.ctx, image, "kairos:test"); err != nil {
		r.Fatal(err)
	}
	token, err := r.Token()
	if err != nil {
		r.Fatal(err)
	}
	bridge, err := laptop.Command(r.ctx, "docker", "run", "--net=host", "--privileged", "kairos:test", "bridge", "--network-token", token)
	if err != nil {
		r.Fatal(err)
	}
	bridge.Stdout, bridge.Stderr = r.Output(), r.Output()
	if err := bridge.Start(); err != nil {
		r.Fatal(err)
	}
	kubeconfig := filepath.Join(laptop.Dir(), "kubeconfig")
	r.eventually(time.Minute, "a second container gets a kubeconfig", func() error {
		text, err := engine.Docker(r.ctx, "run", "--net=host", "-v", "/run/kairos:/run/kairos", "kairos:test", "get-kubeconfig")
		if err != nil {
			return err
		}
		return os.WriteFile(kubeconfig, []byte(text), 0o600)
	})
	nodes, err := cluster.KubectlWith(r.ctx, laptop, kubeconfig, "get", "nodes", "--no-headers")
	if err != nil || strings.Count(nodes, " Ready ") != 4 {
		r.Errorf("nodes over the container's bridge: %v\n%s", err, nodes)
	}
	if err := lab.Signal(bridge, syscall.SIGINT); err != nil {
		r.Fatal(err)
	}
	if err := bridge.Wait(); err != nil {
		r.Errorf("the bridge ended with %v", err)
	}
	if err := engine.Stop(); err != nil {
		r.Error(err)
	}
}
