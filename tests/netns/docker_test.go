package netns

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/docker"
)

// The command line in a container, on a laptop with Docker and nothing of ours:
//
//	a (a node) ── network ── laptop: dockerd ── container 1: kairos bridge
//	                                        └── container 2: kairos get-kubeconfig
//
// The containers share the laptop's network, and no directory with each other. There
// is no cluster here; tests/nspawn has one.
func TestDocker(t *testing.T) {
	w := newWorld(t, "a", "laptop")
	a := w.start("a", "")
	laptop := w.machine("laptop")
	root, err := run.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "cli")
	if _, err := run.Do(w.ctx, run.Cmd{Args: []string{"go", "run", "./image", "cli", "--out", image, "--arch", "amd64,arm64"}, Dir: root}); err != nil {
		t.Fatal(err)
	}
	before := w.traces(laptop)
	engine, err := docker.Start(w.ctx, laptop, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Load(w.ctx, image, "kairos:test"); err != nil {
		t.Fatal(err)
	}
	out := &output{}
	cmd, ended := w.background(laptop, out, "docker", "run", "--net=host", "--privileged", "kairos:test", "bridge", "--network-token", w.token)
	w.eventually(60*time.Second, "the laptop reaches the node over the container's bridge", func() error {
		select {
		case <-ended:
			t.Fatalf("the bridge ended: %s", out)
		default:
		}
		_, err := laptop.Exec(w.ctx, "ping", "-n", "-c", "1", "-W", "1", a.v4().String())
		return err
	})
	// The bridge is found, and says itself what is missing.
	text, err := engine.Docker(w.ctx, "run", "--net=host", "-v", "/run/kairos:/run/kairos", "kairos:test", "get-kubeconfig")
	if err == nil || text != "" || !strings.Contains(err.Error(), "there is no cluster") {
		t.Errorf("get-kubeconfig: %q, %v", text, err)
	}
	status, err := engine.Docker(w.ctx, "run", "--net=host", "kairos:test", "status")
	if err != nil || !strings.Contains(status, a.v4().String()) {
		t.Errorf("status: %v\n%s", err, status)
	}
	// A user of the laptop who is neither root nor behind the bridge gets nothing.
	text, err = engine.Docker(w.ctx, "run", "--net=host", "--user", "1234:1234", "kairos:test", "get-kubeconfig")
	if err == nil || text != "" || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("another user: %q, %v", text, err)
	}
	if err := lab.Signal(cmd, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	w.eventually(30*time.Second, "the bridge ends", func() error {
		select {
		case <-ended:
			return nil
		default:
			return fmt.Errorf("it runs: %s", out)
		}
	})
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("an interrupted bridge ends with %d: %s", code, out)
	}
	if err := engine.Stop(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), w.token) {
		t.Errorf("the token is in: %s", out)
	}
	if after := w.traces(laptop); !strings.HasPrefix(after, before[:strings.Index(before, "/run")]) {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}
