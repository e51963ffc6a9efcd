package kube

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/agent/kube/kubetest"
)

// clock is one that a test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

// holder is a node with what it remembers of the lock.
type holder struct {
	*Lock
	node string
}

func newLock(c *kubetest.Cluster, node string) (holder, *clock) {
	k := &clock{t: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	return holder{&Lock{API: c, Now: k.now}, node}, k
}

func acquire(t *testing.T, l holder) {
	t.Helper()
	if err := l.Acquire(t.Context(), l.node, "upgrade to v2"); err != nil {
		t.Fatalf("%s: %v", l.node, err)
	}
}

func refused(t *testing.T, l holder) *HeldError {
	t.Helper()
	err := l.Acquire(t.Context(), l.node, "upgrade to v3")
	var held *HeldError
	if !errors.As(err, &held) {
		t.Fatalf("%s: got %v, want that another node holds it", l.node, err)
	}
	return held
}

func TestLockIsForOne(t *testing.T) {
	c := kubetest.New(t)
	a, _ := newLock(c, "a")
	b, _ := newLock(c, "b")
	acquire(t, a)
	if held := refused(t, b); held.Holder != "a" || held.Left != LockTTL || held.Error() != "a holds the upgrade lock: upgrade to v2" {
		t.Errorf("told: %v, %s left", held, held.Left)
	}
	if err := b.Release(t.Context(), "b"); err != nil { // not b's to give back
		t.Fatal(err)
	}
	refused(t, b)
	// The same machine after its reboot: nothing is remembered.
	again, _ := newLock(c, "a")
	acquire(t, again)
	if s := c.Lease.Spec; s.Holder != "a" || s.Transitions != 1 || s.Seconds != 3600 || s.Acquired != "2026-11-26T12:00:00.000000Z" {
		t.Errorf("the lease is %+v", s)
	}
	if err := again.Release(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	acquire(t, b)
	if s := c.Lease.Spec; s.Holder != "b" || s.Transitions != 2 {
		t.Errorf("the lease is %+v", s)
	}
}

// A holder that never comes back loses it, by the observer's own clock.
func TestLockExpiresUnrenewed(t *testing.T) {
	c := kubetest.New(t)
	a, ac := newLock(c, "a")
	b, bc := newLock(c, "b")
	ac.t = ac.t.Add(-1000 * time.Hour) // its clock is wrong: that is no matter
	acquire(t, a)
	refused(t, b)
	bc.t = bc.t.Add(LockTTL - time.Second)
	if held := refused(t, b); held.Left != time.Second {
		t.Errorf("%s left", held.Left)
	}
	// Renewed at the last moment: the time begins anew.
	ac.t = ac.t.Add(time.Second)
	acquire(t, a)
	bc.t = bc.t.Add(time.Second)
	if held := refused(t, b); held.Left != LockTTL {
		t.Errorf("%s left after it was renewed", held.Left)
	}
	bc.t = bc.t.Add(LockTTL)
	acquire(t, b)
	if held := refused(t, a); held.Holder != "b" {
		t.Errorf("held by %s", held.Holder)
	}
}

// What a lease says of its own duration is believed within bounds.
func TestLockDurationIsBounded(t *testing.T) {
	for seconds, want := range map[int]time.Duration{0: minTTL, -5: minTTL, 1 << 30: maxTTL, 600: 10 * time.Minute} {
		c := kubetest.New(t)
		a, _ := newLock(c, "a")
		acquire(t, a)
		c.Lease.Spec.Seconds = seconds
		b, _ := newLock(c, "b")
		if held := refused(t, b); held.Left != want {
			t.Errorf("%d seconds: %s left, want %s", seconds, held.Left, want)
		}
	}
}

// Of many that try at once one gets it.
func TestLockRace(t *testing.T) {
	c := kubetest.New(t)
	var wg sync.WaitGroup
	won := make(chan string, 16)
	for i := range cap(won) {
		l, _ := newLock(c, string(rune('a'+i)))
		wg.Go(func() {
			switch err := l.Acquire(t.Context(), l.node, "").(type) {
			case nil:
				won <- l.node
			case *HeldError:
			default:
				if !errors.Is(err, errRaced) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(won) != 1 || c.Lease.Spec.Holder != <-won {
		t.Errorf("%d more got it; the lease is %s's", len(won), c.Lease.Spec.Holder)
	}
}

// Two observers see the same expired lock: the second one's write comes too late.
func TestLockTakeoverRace(t *testing.T) {
	c := kubetest.New(t)
	a, _ := newLock(c, "a")
	b, bc := newLock(c, "b")
	d, dc := newLock(c, "d")
	acquire(t, a)
	refused(t, b)
	refused(t, d)
	bc.t, dc.t = bc.t.Add(LockTTL), dc.t.Add(LockTTL)
	c.Before = func(r *http.Request) {
		if r.Method == http.MethodPut {
			c.Before = nil
			acquire(t, d)
		}
	}
	if held := refused(t, b); held.Holder != "d" {
		t.Errorf("held by %s", held.Holder)
	}
}

func TestLockDeletedInBetween(t *testing.T) {
	c := kubetest.New(t)
	a, _ := newLock(c, "a")
	acquire(t, a)
	c.Before = func(r *http.Request) {
		if r.Method == http.MethodPut {
			c.Before, c.Lease = nil, nil
		}
	}
	acquire(t, a)
	if c.Lease == nil || c.Lease.Spec.Holder != "a" {
		t.Errorf("the lease is %+v", c.Lease)
	}
}

func TestLockSaysWhy(t *testing.T) {
	c := kubetest.New(t)
	a, _ := newLock(c, "a")
	c.Down = errors.New("connection refused")
	if err := a.Acquire(t.Context(), "a", ""); err == nil || err.Error() != "read the upgrade lock: connection refused" {
		t.Errorf("no API: %v", err)
	}
	c.Down = nil
	c.Before = func(r *http.Request) { r.URL.Path = "/broken/lease" }
	var status *StatusError
	if err := a.Acquire(t.Context(), "a", ""); !errors.As(err, &status) || status.Status != http.StatusInternalServerError || !strings.HasSuffix(err.Error(), "so says the API: Internal Server Error") {
		t.Errorf("refused: %v", err)
	}
}
