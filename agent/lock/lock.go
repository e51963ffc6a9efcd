// Package lock keeps the cluster's upgrade lock as long as this machine has it: it is
// written down, renewed while a boot may still be on trial, and given back once this
// node is ready. What is in the cluster is package kube's.
package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/agent/store"
)

// A system on trial is booted so often, and each time judged within
// os.health_timeout after a boot that takes this long at most.
const (
	trialBoots = 3
	bootTime   = 10 * time.Minute
)

// renewals is how often the lock is renewed within the time for which it holds,
// and renewPause is between two tries that failed.
const (
	renewals   = 4
	renewPause = time.Minute
)

// fileName is where this machine notes that it has the upgrade lock.
const fileName = "upgrade-lock.json"

// heldLock is what is written down of it: the machine that has it reboots, maybe
// into another system, and its agent must know then what there is to give back.
type heldLock struct {
	Reason string `json:"reason"`
	Over   bool   `json:"over"` // it is to be given back as soon as this node is ready
}

// Lock is the cluster's upgrade lock as this machine has it or not. It is
// renewed while a boot may still be on trial, by this agent's monotonic clock:
// what nobody renews, or gives back, ends by itself. It is safe for concurrent use.
type Lock struct {
	lock  *kube.Lock
	file  string
	trial time.Duration // after it the verdict on this boot was given
	now   func() time.Time
	turn  chan struct{} // one at a time talks to the cluster: has a place for the one who does

	mu    sync.Mutex // protects what follows
	held  *heldLock  // nil: this machine does not have it
	since time.Time  // when it was taken, or this agent began
	next  time.Time  // not renewed before
}

// Open reads what was written down in dir. health is os.health_timeout. With an
// error the lock works, and is given back if this machine has it.
func Open(k kube.API, dir string, health time.Duration) (*Lock, error) {
	l := &Lock{file: filepath.Join(dir, fileName), trial: health + bootTime, now: time.Now, turn: make(chan struct{}, 1)}
	l.lock = &kube.Lock{API: k, TTL: trialBoots * l.trial}
	l.since = l.now()
	raw, err := os.ReadFile(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	var h heldLock
	if err == nil {
		err = json.Unmarshal(raw, &h)
	}
	if err != nil {
		h, err = heldLock{Over: true}, fmt.Errorf("read %s: %w", l.file, err)
	}
	l.held = &h
	return l, err
}

// set writes down what is held, nil for nothing, and takes it over.
func (l *Lock) set(h *heldLock) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if h == nil {
		if err = os.Remove(l.file); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		var raw []byte
		if raw, err = json.Marshal(h); err == nil {
			err = store.WriteFile(store.OS{}, l.file, append(raw, '\n'))
		}
	}
	l.held = h
	if err != nil {
		return fmt.Errorf("write down who has the upgrade lock: %w", err)
	}
	return nil
}

// get returns what is held, and since when this agent knows of it.
func (l *Lock) get() (h *heldLock, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		return nil, l.since
	}
	held := *l.held
	return &held, l.since
}

// enter waits for the others that talk to the cluster.
func (l *Lock) enter(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case l.turn <- struct{}{}:
		return nil
	}
}

func (l *Lock) leave() { <-l.turn }

// Take takes the lock for node, or renews it; a lock of another node is a
// *kube.HeldError. What cannot be written down is given back.
func (l *Lock) Take(ctx context.Context, node, reason string) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.leave()
	if err := l.lock.Acquire(ctx, node, reason); err != nil {
		return err
	}
	l.mu.Lock()
	l.since = l.now()
	l.mu.Unlock()
	l.renewed()
	if err := l.set(&heldLock{Reason: reason}); err != nil {
		return errors.Join(err, l.lock.Release(ctx, node), l.set(nil))
	}
	return nil
}

// GiveBack gives it back: at once where this node is ready, else as soon as it is.
// An error is of the disk: then a restarted agent would not know.
func (l *Lock) GiveBack(ctx context.Context, node string, ready bool) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.leave()
	h, _ := l.get()
	if h == nil { // taken by a version that wrote nothing down
		h = &heldLock{}
	}
	h.Over = true
	if err := l.set(h); err != nil || !ready {
		return err
	}
	return l.release(ctx, node)
}

// release leaves what is written down where the cluster cannot be told.
func (l *Lock) release(ctx context.Context, node string) error {
	if err := l.lock.Release(ctx, node); err != nil {
		return err
	}
	return l.set(nil)
}

// Keep is the part of a turn: it renews the lock while the trial may last, and
// gives it back when that is over and this node is ready. The loop waits for nobody.
func (l *Lock) Keep(ctx context.Context, node string, ready bool) error {
	select {
	case l.turn <- struct{}{}:
	default:
		return nil
	}
	defer l.leave()
	h, since := l.get()
	if h == nil || node == "" {
		return nil
	}
	trial := l.now().Sub(since) < l.trial
	if !h.Over && !trial { // whoever was to give it back did not reach this agent
		h.Over = true
		if err := l.set(h); err != nil {
			return err
		}
	}
	if h.Over && ready {
		return l.release(ctx, node)
	}
	if !trial || !l.due() {
		return nil
	}
	err := l.lock.Acquire(ctx, node, h.Reason)
	var lost *kube.HeldError
	if errors.As(err, &lost) {
		return errors.Join(err, l.set(nil))
	}
	if err == nil {
		l.renewed()
	}
	return err
}

// due reports whether to renew now; the next try is a pause away.
func (l *Lock) due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if now.Before(l.next) {
		return false
	}
	l.next = now.Add(renewPause)
	return true
}

func (l *Lock) renewed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = l.now().Add(l.lock.TTL / renewals)
}
