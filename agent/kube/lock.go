package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// The lock is a Lease: https://kubernetes.io/docs/concepts/architecture/leases/.
const (
	lockNamespace = "kube-system"
	lockName      = "kairos-upgrade"
	lockReason    = "kairos.io/reason" // annotation
)

// LockTTL is how long a lock holds that nobody renews, where Lock.TTL says
// nothing else: three tries to boot with the default os.health_timeout and the
// boots themselves.
const LockTTL = time.Hour

// Bounds of what is believed of a lease's own duration.
const (
	minTTL = time.Minute
	maxTTL = 24 * time.Hour
)

// conflictTries bounds how often a change is tried again because another one
// came between reading and writing.
const conflictTries = 5

// HeldError says that another node has the lock.
type HeldError struct {
	Holder string
	Reason string        // why it took it, may be empty
	Left   time.Duration // until it ends at the latest, if it is not renewed
}

// Error implements error.
func (e *HeldError) Error() string {
	if e.Reason == "" {
		return e.Holder + " holds the upgrade lock"
	}
	return fmt.Sprintf("%s holds the upgrade lock: %s", e.Holder, e.Reason)
}

// Lock is the cluster's upgrade lock as one node sees it. Who holds it is in the
// cluster alone, so that a node that was rebooted with it has it still; what is
// remembered here is for how long another one's has not changed. It is safe for
// concurrent use.
//
// No wall clock decides: an observer counts the time by its own monotonic clock,
// from when it first saw the lease as it is. An agent that was restarted counts
// from the beginning, which only makes it wait longer.
type Lock struct {
	API API
	Now func() time.Time // nil: time.Now; its monotonic part counts
	TTL time.Duration    // for which it holds unless it is renewed; 0: LockTTL

	mu      sync.Mutex
	version string    // of the lease that another node holds
	since   time.Time // when version was first seen
}

func (l *Lock) now() time.Time {
	if l.Now == nil {
		return time.Now()
	}
	return l.Now()
}

func (l *Lock) ttl() time.Duration {
	if l.TTL == 0 {
		return LockTTL
	}
	return min(max(l.TTL, minTTL), maxTTL)
}

// lease is the part of coordination.k8s.io/v1 Lease that is used. Only nodes
// write it, so nothing else is kept.
type lease struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Metadata   leaseMeta `json:"metadata"`
	Spec       leaseSpec `json:"spec"`
}

type leaseMeta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// leaseSpec: times are for people to read.
type leaseSpec struct {
	Holder      string `json:"holderIdentity"`
	Seconds     int    `json:"leaseDurationSeconds,omitempty"`
	Acquired    string `json:"acquireTime,omitempty"`
	Renewed     string `json:"renewTime,omitempty"`
	Transitions int    `json:"leaseTransitions,omitempty"`
}

const (
	leases    = "/apis/coordination.k8s.io/v1/namespaces/" + lockNamespace + "/leases"
	microTime = "2006-01-02T15:04:05.000000Z07:00" // metav1.MicroTime
)

// errRaced: somebody else changed the lease in between.
var errRaced = errors.New("the upgrade lock keeps changing")

// Acquire takes the lock for node, or renews it where node has it already. A lock
// of another node is a *HeldError, until it was seen unchanged for its duration.
func (l *Lock) Acquire(ctx context.Context, node, reason string) error {
	return l.change(ctx, func(old *lease) (*lease, error) {
		now := l.now()
		next := &lease{Spec: leaseSpec{Transitions: 1, Acquired: now.UTC().Format(microTime)}}
		if old != nil {
			if err := l.free(old, node, now); err != nil {
				return nil, err
			}
			next.Spec.Transitions = old.Spec.Transitions + 1
			if old.Spec.Holder == node {
				next.Spec.Transitions, next.Spec.Acquired = old.Spec.Transitions, old.Spec.Acquired
			}
		}
		next.Spec.Holder, next.Spec.Seconds, next.Spec.Renewed = node, int(l.ttl()/time.Second), now.UTC().Format(microTime)
		next.Metadata.Annotations = map[string]string{lockReason: reason}
		return next, nil
	})
}

// Release gives node's lock back. One that node does not have is left alone.
func (l *Lock) Release(ctx context.Context, node string) error {
	return l.change(ctx, func(old *lease) (*lease, error) {
		if old == nil || old.Spec.Holder != node {
			return nil, nil
		}
		return &lease{Spec: leaseSpec{Transitions: old.Spec.Transitions, Renewed: l.now().UTC().Format(microTime)}}, nil
	})
}

// free returns nil when node may take the lock.
func (l *Lock) free(old *lease, node string, now time.Time) error {
	if old.Spec.Holder == "" || old.Spec.Holder == node {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := old.Metadata.ResourceVersion; v != l.version {
		l.version, l.since = v, now
	}
	ttl := min(max(time.Duration(old.Spec.Seconds)*time.Second, minTTL), maxTTL)
	if left := ttl - now.Sub(l.since); left > 0 {
		return &HeldError{Holder: old.Spec.Holder, Reason: old.Metadata.Annotations[lockReason], Left: left}
	}
	return nil
}

// change reads the lease (nil: there is none), and writes what next makes of it
// (nil: nothing) only if nobody else wrote in between.
func (l *Lock) change(ctx context.Context, next func(old *lease) (*lease, error)) error {
	for range conflictTries {
		old, err := l.read(ctx)
		if err != nil {
			return err
		}
		want, err := next(old)
		if err != nil || want == nil {
			return err
		}
		done, err := l.write(ctx, old, want)
		if err != nil || done {
			return err
		}
	}
	return errRaced
}

func (l *Lock) read(ctx context.Context) (*lease, error) {
	var old lease
	const verb = "read the upgrade lock"
	status, raw, err := call(ctx, l.API, exchange{verb: verb, method: http.MethodGet, path: leases + "/" + lockName, out: &old})
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, nil
	case status != http.StatusOK:
		return nil, unexpected(verb, status, raw)
	}
	return &old, nil
}

// write reports whether the lease was as old until now.
func (l *Lock) write(ctx context.Context, old, want *lease) (bool, error) {
	want.APIVersion, want.Kind = "coordination.k8s.io/v1", "Lease"
	want.Metadata.Name, want.Metadata.Namespace = lockName, lockNamespace
	x := exchange{verb: "write the upgrade lock", method: http.MethodPost, path: leases, in: want}
	if old != nil {
		x.method, x.path = http.MethodPut, leases+"/"+lockName
		want.Metadata.ResourceVersion = old.Metadata.ResourceVersion
	}
	status, raw, err := call(ctx, l.API, x)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusConflict, status == http.StatusNotFound && old != nil: // deleted in between
		return false, nil
	case status/100 != 2:
		return false, unexpected(x.verb, status, raw)
	}
	return true, nil
}
