// Package labtest gives a test a lab of its own that is gone when the test is.
package labtest

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/lab"
)

// MaxTime bounds the work of one test in its lab, unless the test's own
// deadline is earlier.
const MaxTime = 20 * time.Minute

// New creates a lab. Not being root fails the test: such tests are asked for
// explicitly (see `make test`) and must not pass by not having run.
func New(t *testing.T, o lab.Options) (context.Context, *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), MaxTime)
	t.Cleanup(cancel)
	if deadline, ok := t.Deadline(); ok {
		// Leave time to clean up.
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-20*time.Second))
		t.Cleanup(cancel)
	}
	if o.Log == nil {
		o.Log = t.Output()
	}
	l, err := lab.Create(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return ctx, l
}

// CheckGone fails the test if anything on the host still bears the lab's id. A
// control group that is gone had no process left.
func CheckGone(t *testing.T, l *lab.Lab) {
	t.Helper()
	id := l.ID()
	for _, args := range [][]string{{"ip", "-o", "link"}, {"ip", "netns", "list"}, {"cat", "/proc/self/mountinfo"}} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		for line := range bytes.Lines(out) {
			if strings.Contains(string(line), "kl"+id) || strings.Contains(string(line), l.Dir()+"/") {
				t.Errorf("left behind: %s", line)
			}
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/kairos-lab-" + id, "/sys/fs/cgroup/*/kairos-lab-" + id, l.Dir()} {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			t.Errorf("left behind: %v %v", found, err)
		}
	}
}

// Eventually waits until f returns nil, and fails the test with what f said
// last if that takes longer than d.
func Eventually(t *testing.T, d time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(d)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) || t.Context().Err() != nil {
			t.Fatalf("waited %s until %s: %v", d, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
