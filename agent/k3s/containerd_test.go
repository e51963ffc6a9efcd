package k3s

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/agent/api"
)

func TestMain(m *testing.M) {
	// containerd's client gives up a dial by its own timeout of 2 s only, also after Close.
	const dial = "github.com/containerd/containerd/v2/pkg/dialer.timeoutDialer"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(dial), goleak.IgnoreAnyFunction(dial+".func1"))
}

// deadline bounds every wait of these tests.
const deadline = 30 * time.Second

// daemon is a real containerd in a directory of its own. Nothing of the
// machine's own containerd, if there is one, is touched.
//
//	test ──Runtime──> containerd (temporary root) ──shim──> testdata/k3s
type daemon struct {
	dir string
	cmd *exec.Cmd
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT RUN: needs root to run containers")
	}
	for _, p := range []string{"containerd", "runc"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("NOT RUN: needs %s (Debian package %s)", p, p)
		}
	}
	// Short, because a socket's path is; not t.TempDir, which fails when a mount lingers.
	dir, err := os.MkdirTemp("", "k3s-test")
	if err != nil {
		t.Fatal(err)
	}
	keepHostDirs(t)
	d := &daemon{dir: dir}
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), d.socket())
	if err := os.WriteFile(d.path("config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	t.Cleanup(func() {
		r := d.open(t)
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			t.Error(err)
		}
		d.stop(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return d
}

// keepHostDirs removes the shared directories that this test made the runtime make.
func keepHostDirs(t *testing.T) {
	t.Helper()
	for _, p := range append([]string{kubeletDir}, sharedDirs...) {
		if _, err := os.Stat(p); err != nil {
			t.Cleanup(func() { _ = os.Remove(p) }) // only when it is empty
		}
	}
	t.Cleanup(func() {
		for _, pattern := range []string{"/sys/fs/cgroup/kairos-test", "/sys/fs/cgroup/*/kairos-test"} {
			found, _ := filepath.Glob(pattern) // the pattern is good
			for _, p := range found {
				_ = os.Remove(p)
			}
		}
	})
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }
func (d *daemon) socket() string          { return d.path("c.sock") }

func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(d.path("containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	d.cmd = exec.Command("containerd", "-c", d.path("config.toml"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := d.open(t)
	eventually(t, "containerd to answer", func() bool { _, err := r.Status(t.Context()); return err == nil })
}

func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = d.cmd.Wait() // ended by a signal
}

// open is what each new agent does.
func (d *daemon) open(t *testing.T) *Runtime {
	t.Helper()
	r, err := Open(Options{Socket: d.socket(), LogFile: d.path("log/k3s.log"), Cgroup: "/kairos-test/" + filepath.Base(d.dir)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// eventually polls, because containerd's start announces itself to nobody.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(deadline)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s did not happen", what)
		}
	}
}

// program builds the stand-in for k3s, once.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "k3s-program")
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "k3s")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/k3s")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	raw, err := os.ReadFile(out)
	return raw, errors.Join(err, os.RemoveAll(dir))
})

// piece is a blob with its content.
type piece struct {
	api.Blob
	raw []byte
}

func newPiece(mediaType string, raw []byte) piece {
	sum := sha256.Sum256(raw)
	return piece{api.Blob{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(raw))}, raw}
}

// testImage returns the pieces of an image, its manifest last. The label tells images apart.
func testImage(t *testing.T, label string) []piece {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = errors.Join(
		w.WriteHeader(&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}),
		w.WriteHeader(&tar.Header{Name: "bin/k3s", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(bin))}))
	_, werr := w.Write(bin)
	if err := errors.Join(err, werr, w.Close()); err != nil {
		t.Fatal(err)
	}
	l := newPiece("application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	c := newPiece("application/vnd.oci.image.config.v1+json", encode(t, map[string]any{
		"os": "linux", "architecture": goruntime.GOARCH,
		"config": map[string]any{"Entrypoint": []string{"/bin/k3s"}, "Labels": map[string]string{"label": label}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{l.Digest}},
	}))
	describe := func(p piece) map[string]any {
		return map[string]any{"mediaType": p.MediaType, "digest": p.Digest, "size": p.Size}
	}
	m := newPiece("application/vnd.oci.image.manifest.v1+json", encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": describe(c), "layers": []any{describe(l)},
	}))
	m.Config, m.Layers = c.Digest, []string{l.Digest}
	return []piece{c, l, m}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// fill stores pieces that are not there yet, and counts what it wrote.
func fill(pieces []piece, written *int) Fill {
	return func(ctx context.Context, c Store) (api.Blob, error) {
		for _, p := range pieces {
			there, err := c.Has(ctx, p.Blob)
			if err != nil {
				return api.Blob{}, err
			}
			if there {
				continue
			}
			if err := c.Write(ctx, p.Blob, bytes.NewReader(p.raw)); err != nil {
				return api.Blob{}, err
			}
			*written++
		}
		return pieces[len(pieces)-1].Blob, nil
	}
}

func importImage(t *testing.T, r *Runtime, name string) {
	t.Helper()
	n := 0
	if err := r.ImportImage(t.Context(), name, fill(testImage(t, name), &n)); err != nil {
		t.Fatal(err)
	}
}

// ran is a runtime whose k3s runs with these arguments.
func ran(t *testing.T, d *daemon, args ...string) (*Runtime, Spec) {
	t.Helper()
	r := d.open(t)
	importImage(t, r, "example.com/k3s:v1")
	s := Spec{Role: Server, UID: "u1", Image: "example.com/k3s:v1", Args: append([]string{"server"}, args...), Env: map[string]string{"FROM_CONFIG": "yes"}}
	if err := r.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return r, s
}

func status(t *testing.T, r *Runtime) Status {
	t.Helper()
	s, err := r.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func exited(t *testing.T, r *Runtime) <-chan struct{} {
	t.Helper()
	done, err := r.Exited(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func await(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(deadline):
		t.Fatalf("%s did not happen", what)
	}
}

func (d *daemon) logHas(t *testing.T, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q in the log", want), func() bool {
		raw, err := os.ReadFile(d.path("log/k3s.log"))
		return err == nil && strings.Contains(string(raw), want)
	})
}
