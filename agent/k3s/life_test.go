package k3s

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/kairos-io/kairos/agent/api"
)

// The container's life in a real containerd, with a program in k3s' place.

func TestStartAdoptStop(t *testing.T) {
	d := newDaemon(t)
	r, s := ran(t, d)
	first := status(t, r)
	if !first.Exists || !first.Running || first.PID == 0 || first.Role != Server || first.UID != "u1" || first.SpecHash != s.Hash() {
		t.Errorf("started: %+v", first)
	}
	d.logHas(t, "k3s server env yes")
	if m := mode(t, d.path("log/k3s.log")); m != 0o600 {
		t.Errorf("log of mode %o", m)
	}
	done := exited(t, r)

	next := d.open(t) // the agent was killed and started again
	if err := next.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := status(t, next); got.PID != first.PID {
		t.Errorf("process %d became %d: not adopted", first.PID, got.PID)
	}
	select {
	case <-done:
		t.Error("told as ended while it runs")
	default:
	}

	// The log is turned over under the running process.
	if err := rotate(d.path("log/k3s.log"), 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(int(first.PID), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	d.logHas(t, "still here")
	raw, err := os.ReadFile(d.path("log/k3s.log"))
	if err != nil || bytes.ContainsRune(raw, 0) || bytes.Contains(raw, []byte("k3s server")) {
		t.Errorf("after turning over: %q, %v", raw, err)
	}

	if err := next.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of k3s", done)
	d.logHas(t, "closing")
	if got := status(t, next); got.Exists {
		t.Errorf("after Stop: %+v", got)
	}
	if err := next.Stop(t.Context()); err != nil {
		t.Errorf("stopping what is stopped: %v", err)
	}
	await(t, "a watch on nothing", exited(t, next))
}

// k3s was given a flag that it does not know.
func TestEndsAtOnce(t *testing.T) {
	d := newDaemon(t)
	r, s := ran(t, d, "--exit=3")
	await(t, "the end of k3s", exited(t, r))
	got := status(t, r)
	if !got.Exists || got.Running || got.ExitCode != 3 || time.Since(got.Exited) > deadline {
		t.Errorf("ended: %+v", got)
	}
	if err := r.Start(t.Context(), s); err != nil {
		t.Errorf("again: %v", err)
	}
	s.Args = []string{"server"}
	if err := r.Start(t.Context(), s); err != nil {
		t.Errorf("with the flag mended: %v", err)
	}
	if got := status(t, r); !got.Running {
		t.Errorf("with the flag mended: %+v", got)
	}
}

func TestReplace(t *testing.T) {
	d := newDaemon(t)
	r, s := ran(t, d)
	first := status(t, r)
	gone := s
	gone.Image = "example.com/k3s:none"
	if err := r.Start(t.Context(), gone); err == nil {
		t.Error("started from an image that is not there")
	}
	if got := status(t, r); got.PID != first.PID || !got.Running {
		t.Errorf("given up for an image that is not there: %+v", got)
	}
	s.Args = append(s.Args, "--disable=traefik")
	if err := r.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := status(t, r); got.PID == first.PID || !got.Running || got.SpecHash != s.Hash() {
		t.Errorf("not replaced: %+v", got)
	}
	if err := syscall.Kill(int(first.PID), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the old process: %v", err)
	}
	d.logHas(t, "k3s server --disable=traefik")
}

// The agent was killed in the middle of Start.
func TestStartGoesOn(t *testing.T) {
	for _, tc := range []struct {
		name string
		done func(t *testing.T, r *Runtime, c containerd.Container)
	}{
		{"after the container was made", func(*testing.T, *Runtime, containerd.Container) {}},
		{"after the process was made, before its start", func(t *testing.T, r *Runtime, c containerd.Container) {
			if err := prepareLog(r.logs); err != nil {
				t.Fatal(err)
			}
			if _, err := c.NewTask(t.Context(), cio.LogFile(r.logs)); err != nil {
				t.Fatal(err)
			}
		}},
		{"after the container was removed, before its snapshot was", func(t *testing.T, r *Runtime, c containerd.Container) {
			if err := c.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			r := d.open(t)
			importImage(t, r, "example.com/k3s:v1")
			s := Spec{Role: Agent, UID: "u1", Image: "example.com/k3s:v1", Args: []string{"agent"}}
			c, err := r.create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			tc.done(t, r, c)
			if got := status(t, r); got.Running {
				t.Fatalf("before: %+v", got)
			}
			if err := r.Start(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if got := status(t, r); !got.Running || got.Role != Agent {
				t.Errorf("after: %+v", got)
			}
		})
	}
}

// containerd is killed and started again: k3s lives on and is found again.
func TestContainerdRestarts(t *testing.T) {
	d := newDaemon(t)
	r, s := ran(t, d)
	first := status(t, r)
	done := exited(t, r)
	d.stop(t)
	await(t, "word that nobody watches k3s any more", done)
	for name, err := range map[string]error{
		"status": second(r.Status(t.Context())), "start": r.Start(t.Context(), s), "stop": r.Stop(t.Context()),
		"watch": second(r.Exited(t.Context())), "image": second(r.ImageDigest(t.Context(), s.Image)),
	} {
		if !errors.Is(err, ErrNoRuntime) {
			t.Errorf("%s without containerd: %v", name, err)
		}
	}
	if err := syscall.Kill(int(first.PID), 0); err != nil {
		t.Fatalf("k3s went with containerd: %v", err)
	}
	d.start(t)
	eventually(t, "the same k3s under the new containerd", func() bool {
		got, err := r.Status(t.Context())
		return err == nil && got.Running && got.PID == first.PID
	})
	if err := r.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := status(t, r); got.PID != first.PID {
		t.Errorf("restarted: %d became %d", first.PID, got.PID)
	}
}

func second[T any](_ T, err error) error { return err }

// A containerd that hangs is the same as none, after the caller's patience.
func TestContainerdHangs(t *testing.T) {
	d := newDaemon(t)
	r := d.open(t)
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.cmd.Process.Signal(syscall.SIGCONT) }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := r.Status(ctx); !errors.Is(err, ErrNoRuntime) {
		t.Errorf("got %v, want ErrNoRuntime", err)
	}
}

func TestImportImage(t *testing.T) {
	d := newDaemon(t)
	r := d.open(t)
	const name = "example.com/k3s:v1"
	has := func() string {
		got, err := r.ImageDigest(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := has(); got != "" {
		t.Errorf("before: %q", got)
	}
	pieces, n := testImage(t, "one"), 0
	cut := errors.New("the network went away")
	err := r.ImportImage(t.Context(), name, func(ctx context.Context, c Store) (api.Blob, error) {
		_, err := fill(pieces[:2], &n)(ctx, c)
		return api.Blob{}, errors.Join(err, cut)
	})
	if !errors.Is(err, cut) || n != 2 || has() != "" {
		t.Fatalf("half a pull: %v, %d blobs, digest %q", err, n, has())
	}
	if err := d.open(t).ImportImage(t.Context(), name, fill(pieces, &n)); err != nil { // by the next agent
		t.Fatal(err)
	}
	if n != 3 || has() != pieces[2].Digest {
		t.Errorf("gone on: %d blobs written in all, digest %q", n, has())
	}
	other := testImage(t, "two")
	if err := r.ImportImage(t.Context(), name, fill(other, &n)); err != nil {
		t.Fatal(err)
	}
	if n != 5 || has() != other[2].Digest {
		t.Errorf("another image under the name: %d blobs written in all, digest %q", n, has())
	}
	leases, err := r.client.LeasesService().List(t.Context())
	if err != nil || len(leases) != 0 {
		t.Errorf("leases left: %v, %v", leases, err)
	}
}

// Named and then not unpacked to the end is not there.
func TestImageThatWasNotUnpacked(t *testing.T) {
	d := newDaemon(t)
	r := d.open(t)
	pieces, n := testImage(t, "one"), 0
	m, err := fill(pieces, &n)(t.Context(), contents{r.client.ContentStore()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.nameImage(t.Context(), images.Image{Name: "x", Target: descriptorOf(m)}); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ImageDigest(t.Context(), "x"); got != "" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestContentRefusesWhatItIsNot(t *testing.T) {
	d := newDaemon(t)
	c := contents{d.open(t).client.ContentStore()}
	p := newPiece("application/octet-stream", bytes.Repeat([]byte("k3s"), 1<<16))
	for name, raw := range map[string][]byte{"other bytes": bytes.Repeat([]byte("K3S"), 1<<16), "cut short": p.raw[:1000], "too long": append(p.raw, 'x')} {
		if err := c.Write(t.Context(), p.Blob, bytes.NewReader(raw)); err == nil {
			t.Errorf("%s: taken", name)
		}
		if there, err := c.Has(t.Context(), p.Blob); there || err != nil {
			t.Errorf("%s: there %v, %v", name, there, err)
		}
	}
}

// Power was cut while a blob was written: what is left of it is zeros.
func TestDamagedHalfBlobIsDropped(t *testing.T) {
	d := newDaemon(t)
	c := contents{d.open(t).client.ContentStore()}
	p := newPiece("application/octet-stream", bytes.Repeat([]byte("k3s"), 1<<16))
	w, err := c.store.Writer(t.Context(), content.WithRef("kairos-"+p.Digest), content.WithDescriptor(descriptorOf(p.Blob)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// The first try finds out, the second goes through.
	err = c.Write(t.Context(), p.Blob, onlyReader{bytes.NewReader(p.raw)})
	if err == nil {
		t.Fatal("zeros were taken for content")
	}
	if err := c.Write(t.Context(), p.Blob, onlyReader{bytes.NewReader(p.raw)}); err != nil {
		t.Errorf("for ever: %v", err)
	}
}

// onlyReader is a network stream: it cannot be read again from the start.
type onlyReader struct{ io.Reader }
