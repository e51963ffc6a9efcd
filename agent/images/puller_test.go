package images

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
)

// fakeImages is a containerd whose import ends when the test says so.
type fakeImages struct {
	digest string
	err    error
	finish chan error // what each import answers
}

func (f *fakeImages) ImageDigest(context.Context, string) (string, error) { return f.digest, f.err }

func (f *fakeImages) ImportImage(ctx context.Context, _ string, _ k3s.Fill) error {
	select {
	case err := <-f.finish:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestNewPuller(t *testing.T) {
	for _, tc := range []struct{ name, image, ref, err string }{
		{"the default", "", k3s.DefaultImage, ""},
		{"a reference", "registry.example/k3s:v1", "registry.example/k3s:v1", ""},
		{"a layout", "oci:/usr/share/k3s", "oci:/usr/share/k3s", ""},
		{"nonsense", "Not An Image", "", "k3s.image: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := NewPuller(tc.image, Places{Hosts: ""}, &fakeImages{})
			if tc.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || p.ref.String() != tc.ref {
				t.Errorf("got %v, %v", p, err)
			}
		})
	}
}

// A pull runs beside the loop, one at a time, and failures space the tries.
func TestPullerTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		img := &fakeImages{finish: make(chan error)}
		p, err := NewPuller("registry.example/k3s:v1", Places{Hosts: t.TempDir()}, img)
		if err != nil {
			t.Fatal(err)
		}
		say := func() string {
			err := p.Start(t.Context(), time.Now())
			var pending *health.Pending
			if errors.As(err, &pending) {
				return strings.TrimSpace("pending " + pending.Detail)
			}
			var problem *health.Problem
			if !errors.As(err, &problem) || problem.Code != health.CodeImage || problem.Hint == "" {
				t.Fatalf("got %v", err)
			}
			return problem.Detail
		}
		want := func(when, text string) {
			t.Helper()
			if got := say(); got != text {
				t.Errorf("%s: %q, want %q", when, got, text)
			}
		}
		want("at first", "pending")
		p.progress(5<<20, 200<<20)
		want("while it runs", "pending 5 of 200 MB")
		for _, pause := range []string{"2s", "4s", "8s", "16s", "32s", "1m0s", "1m0s"} {
			changed := p.Changed()
			img.finish <- errors.New("no route to host")
			<-changed
			synctest.Wait()
			want("after a failure", "next try in "+pause)
			d, err := time.ParseDuration(pause)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(d) // the bubble's clock
			want("after the pause", "pending")
		}
		changed := p.Changed()
		img.finish <- nil
		<-changed
		p.Wait()
		if p.fails != 0 || p.err != nil {
			t.Errorf("after success: %d failures, %v", p.fails, p.err)
		}
	})
}

// A pull that waits for a registry is given up when a member has the image, at
// once and without counting as a failure; one that gets something is not.
func TestPullerHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		img := &fakeImages{finish: make(chan error)}
		p, err := NewPuller("registry.example/k3s:v1", Places{Hosts: t.TempDir()}, img)
		if err != nil {
			t.Fatal(err)
		}
		running := func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.running
		}
		for _, tc := range []struct {
			name   string
			before func()
			stays  bool
		}{
			{"nothing has come", func() {}, false},
			{"something has come", func() { p.progress(1, 100) }, true},
			{"it is at a member already", p.atMembers, true},
		} {
			_ = p.Start(t.Context(), time.Now()) // says what it waits for
			synctest.Wait()
			tc.before()
			p.hurry()
			synctest.Wait()
			if running() != tc.stays {
				t.Errorf("%s: goes on %v", tc.name, running())
			}
			if tc.stays {
				img.finish <- nil
				synctest.Wait()
			}
			if p.fails != 0 || !p.next.IsZero() && p.next.After(time.Now()) {
				t.Errorf("%s: %d failures, next try in %s", tc.name, p.fails, time.Until(p.next))
			}
		}
		// What failed before is tried at once when there is somebody to ask.
		_ = p.Start(t.Context(), time.Now())
		changed := p.Changed()
		img.finish <- errors.New("no route to host")
		<-changed
		p.hurry()
		if err := p.Start(t.Context(), time.Now()); err == nil || !strings.HasPrefix(err.Error(), "getting the k3s image") {
			t.Errorf("after a failure: %v", err)
		}
		img.finish <- nil
		p.Wait()
	})
}

// The same text in every turn: what changes is in the detail, and not logged.
func TestPullerSaysTheSame(t *testing.T) {
	p, err := NewPuller("registry.example/k3s:v1", Places{Hosts: ""}, &fakeImages{})
	if err != nil {
		t.Fatal(err)
	}
	p.running = true
	seen := map[string]bool{}
	for i := range 3 {
		p.progress(int64(i)<<20, 9<<20)
		seen[p.Start(t.Context(), time.Now()).Error()] = true
	}
	p.running, p.err, p.next = false, errors.New("x"), time.Now().Add(time.Hour)
	for i := range 3 {
		seen[p.Start(t.Context(), time.Now().Add(time.Duration(i)*time.Second)).Error()] = true
	}
	if len(seen) != 2 {
		t.Errorf("got %v", seen)
	}
}

func TestPullerHas(t *testing.T) {
	const one, two = "sha256:1111111111111111111111111111111111111111111111111111111111111111", "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	corrupt := t.TempDir()
	if err := os.WriteFile(filepath.Join(corrupt, "index.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, image, there string
		err                error
		want, fail         bool
	}{
		{"by tag, there", "r.example/k3s:v1", one, nil, true, false},
		{"by tag, not there", "r.example/k3s:v1", "", nil, false, false},
		{"by digest, the same", "r.example/k3s@" + one, one, nil, true, false},
		{"by digest, another", "r.example/k3s@" + one, two, nil, false, false},
		{"containerd away", "r.example/k3s:v1", "", k3s.ErrNoRuntime, false, true},
		{"layout gone, imported", "oci:/nowhere", one, nil, true, false},
		{"layout gone, not imported", "oci:/nowhere", "", nil, false, true},
		{"layout gone, containerd away", "oci:/nowhere", "", k3s.ErrNoRuntime, false, true},
		{"layout corrupt: not taken for gone", "oci:" + corrupt, one, nil, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := NewPuller(tc.image, Places{Hosts: ""}, &fakeImages{digest: tc.there, err: tc.err})
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Has(t.Context())
			if got != tc.want || (err != nil) != tc.fail {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
