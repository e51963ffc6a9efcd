package lock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/agent/kube/kubetest"
)

// holding is an upgrade lock whose clock a test moves, and the lease of its cluster.
type holding struct {
	*Lock
	t    *testing.T
	dir  string
	kube *kubetest.Cluster
	at   time.Time
}

func newHolding(t *testing.T, health time.Duration) *holding {
	t.Helper()
	h := &holding{t: t, dir: t.TempDir(), kube: kubetest.New(t), at: time.Unix(1_800_000_000, 0)}
	h.boot(health)
	return h
}

// boot starts another agent on the same disk.
func (h *holding) boot(health time.Duration) {
	h.t.Helper()
	var err error
	if h.Lock, err = Open(h.kube, h.dir, health); err != nil {
		h.t.Fatal(err)
	}
	h.now = func() time.Time { return h.at }
	h.since = h.at
}

// turns lets time pass, with a turn of the loop now and then.
func (h *holding) turns(d time.Duration, ready bool) {
	h.t.Helper()
	for end := h.at.Add(d); h.at.Before(end); h.at = h.at.Add(30 * time.Second) {
		if err := h.Keep(h.t.Context(), "one", ready); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *holding) take() {
	h.t.Helper()
	if err := h.Lock.Take(h.t.Context(), "one", "upgrade to v2"); err != nil {
		h.t.Fatal(err)
	}
}

// other is another server that wants to be upgraded.
func (h *holding) other() *kube.Lock {
	return &kube.Lock{API: h.kube, Now: func() time.Time { return h.at }}
}

// refuses checks whether the other server has to wait.
func (h *holding) refuses(l *kube.Lock, want bool) {
	h.t.Helper()
	err := l.Acquire(h.t.Context(), "two", "upgrade to v2")
	var held *kube.HeldError
	if got := errors.As(err, &held); got != want || err != nil && !got {
		h.t.Errorf("at %s the other server got %v", h.at.Format(time.TimeOnly), err)
	}
}

const longTrial = 6 * time.Hour

// A system that hangs until its three tries are over renews nothing.
func TestLockOutlivesADarkTrial(t *testing.T) {
	for name, health := range map[string]time.Duration{"default": 10 * time.Minute, "longest": longTrial} {
		t.Run(name, func(t *testing.T) {
			h := newHolding(t, health)
			h.take()
			two := h.other()
			h.refuses(two, true)
			h.at = h.at.Add(3 * health)
			h.refuses(two, true)
			h.at = h.at.Add(3*bootTime + time.Minute)
			h.refuses(two, false)
		})
	}
}

// Nor does it end while agents come and go that could renew it.
func TestLockIsRenewedWhileTheTrialLasts(t *testing.T) {
	h := newHolding(t, longTrial)
	h.take()
	two := h.other()
	h.refuses(two, true)
	for range 4 { // as of the old system, which comes back, too
		h.boot(longTrial)
		h.turns(longTrial, false)
		h.refuses(two, true)
	}
	if err := h.GiveBack(t.Context(), "one", true); err != nil {
		t.Fatal(err)
	}
	h.refuses(two, false)
	if _, err := os.Stat(filepath.Join(h.dir, fileName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still written down: %v", err)
	}
}

// The verdict was given, and whoever gave it did not reach the agent.
func TestLockEndsWithTheTrial(t *testing.T) {
	h := newHolding(t, 10*time.Minute)
	h.take()
	h.boot(10 * time.Minute)
	h.turns(10*time.Minute, true)
	two := h.other()
	h.refuses(two, true)
	h.turns(bootTime+time.Minute, true)
	h.refuses(two, false)
}

// A node that does not get ready any more does not keep the others waiting for ever.
func TestLockOfASickNodeEnds(t *testing.T) {
	h := newHolding(t, 10*time.Minute)
	h.take()
	if err := h.GiveBack(t.Context(), "one", false); err != nil {
		t.Fatal(err)
	}
	two := h.other()
	h.turns(20*time.Minute, false)
	h.refuses(two, true)
	h.turns(time.Hour, false)
	h.refuses(two, false)
	h.boot(10 * time.Minute)
	if err := h.Keep(t.Context(), "one", true); err != nil {
		t.Fatal(err)
	}
	if got := h.kube.Lease.Spec.Holder; got != "two" {
		t.Errorf("the lock of another is held by %q", got)
	}
}

// Somebody deleted the lease, and another server has it now.
func TestLostLockIsForgotten(t *testing.T) {
	h := newHolding(t, 10*time.Minute)
	h.take()
	h.kube.Lease = nil
	h.refuses(h.other(), false)
	h.at = h.at.Add(h.lock.TTL)
	h.boot(10 * time.Minute)
	var held *kube.HeldError
	if err := h.Keep(t.Context(), "one", false); !errors.As(err, &held) {
		t.Errorf("got %v", err)
	}
	if err := h.Keep(t.Context(), "one", false); err != nil {
		t.Errorf("told again: %v", err)
	}
}

// What is damaged is given back, and what cannot be written down is not taken.
func TestLockOnABadDisk(t *testing.T) {
	h := newHolding(t, 10*time.Minute)
	h.take()
	path := filepath.Join(h.dir, fileName)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(h.kube, h.dir, 10*time.Minute)
	if err == nil {
		t.Error("a damaged file is not told")
	}
	if err := l.Keep(t.Context(), "one", true); err != nil || h.kube.Lease.Spec.Holder != "" {
		t.Errorf("held by %q, %v", h.kube.Lease.Spec.Holder, err)
	}
	if err := os.Mkdir(path+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Take(t.Context(), "one", "upgrade to v2"); err == nil || h.kube.Lease.Spec.Holder != "" {
		t.Errorf("not written down, and held by %q: %v", h.kube.Lease.Spec.Holder, err)
	}
}
