package console

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stage is what a Watcher looks at and shows on, for two goroutines.
type stage struct {
	mu           sync.Mutex
	facts        Facts
	looks, shown int
}

func (s *stage) change(f func(*Facts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.facts)
}

func (s *stage) look(context.Context) Facts {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return s.facts
}

func (s *stage) show([]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown++
	return nil
}

func (s *stage) counts() (looks, shown int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks, s.shown
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, changes := &stage{facts: ready()}, make(chan struct{}, 1)
		done := make(chan error, 1)
		go func() { done <- Watcher{Look: s.look, Changes: changes, Show: s.show}.Run(ctx) }()
		want := func(what string, screens int) {
			t.Helper()
			synctest.Wait()
			if _, shown := s.counts(); shown != screens {
				t.Errorf("%s: %d screens, want %d", what, shown, screens)
			}
		}
		want("at the start", 1)
		time.Sleep(time.Hour)
		want("nothing changed", 1)
		if looks, _ := s.counts(); looks > 400 {
			t.Errorf("%d looks in an hour", looks)
		}

		s.change(func(f *Facts) { f.Role = "worker" })
		changes <- struct{}{}
		time.Sleep(settle)
		want("the network told of a change", 2)

		s.change(func(f *Facts) { f.Waiting = "containerd" })
		time.Sleep(pace)
		want("a change without an event", 3)
		s.change(func(f *Facts) { f.Waiting = "" })
		time.Sleep(hurry)
		want("while something is waited for", 4)

		for i := range 100 { // a network that changes all the time
			s.change(func(f *Facts) { f.Hostname = strconv.Itoa(i) })
			select {
			case changes <- struct{}{}:
			default:
			}
			time.Sleep(settle / 10)
		}
		if _, shown := s.counts(); shown > 4+11 {
			t.Errorf("the prompt flickers: %d screens in 10 s", shown-4)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWatchEndsWhenItCannotShow(t *testing.T) {
	w := Watcher{Look: func(context.Context) Facts { return ready() }, Show: func([]byte) error { return errors.New("no space") }}
	if err := w.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("got %v", err)
	}
}

func TestShow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "issue.d", "50.issue")
	reloads, warned := 0, 0
	show := Show(file, func() error { reloads++; return errors.New("no agetty") }, func(error) { warned++ })
	if err := show([]byte("a\n")); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "a\n" {
		t.Errorf("got %q, %v", raw, err)
	}
	if reloads != 1 || warned != 1 {
		t.Errorf("%d reloads, %d warnings", reloads, warned)
	}
}

func TestChangesFollowTheRevision(t *testing.T) {
	overlay := serve(t, &fakeOverlay{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case <-Changes(ctx, overlay):
	case <-ctx.Done():
		t.Error("the first revision is no change")
	}
}
