package role

import (
	"testing"
	"time"
)

// k3s that ends again and again is started ever more seldom; one that has
// worked for a while is started at once.
func TestBackoff(t *testing.T) {
	type step struct {
		after  time.Duration
		worked bool
		fails  int
		wait   time.Duration // from then until the next start
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"ends at once, for ever", []step{{0, false, 1, 2 * time.Second}, {2 * time.Second, false, 2, 4 * time.Second}, {4 * time.Second, false, 3, 8 * time.Second},
			{time.Minute, false, 4, 16 * time.Second}, {time.Minute, false, 5, 32 * time.Second}, {time.Minute, false, 6, time.Minute}, {time.Minute, false, 7, time.Minute}}},
		{"works for a moment each time", []step{{0, false, 1, 2 * time.Second}, {10 * time.Second, true, 1, -8 * time.Second}, {5 * time.Second, false, 2, 4 * time.Second}}},
		{"works for a minute: forgiven", []step{{0, false, 1, 2 * time.Second}, {time.Second, true, 1, time.Second}, {time.Minute, true, 0, 0}}},
		{"a minute counts anew after each end", []step{{0, false, 1, 2 * time.Second}, {time.Second, true, 1, time.Second}, {50 * time.Second, false, 2, 4 * time.Second},
			{20 * time.Second, true, 2, -16 * time.Second}, {50 * time.Second, true, 2, -66 * time.Second}}},
		{"works from the start", []step{{0, true, 0, 0}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b Backoff
			now := time.Unix(0, 0)
			for i, s := range tc.steps {
				now = now.Add(s.after)
				if s.worked {
					b.Worked(now)
				} else {
					b.Failed(now, nil)
				}
				wait := time.Duration(0)
				if !b.Next.IsZero() {
					wait = b.Next.Sub(now)
				}
				if b.Fails != s.fails || wait != s.wait {
					t.Fatalf("step %d: %d failures, next in %s; want %d, %s", i, b.Fails, wait, s.fails, s.wait)
				}
			}
		})
	}
}

func TestPauseAfter(t *testing.T) {
	for fails, want := range map[int]time.Duration{0: 0, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 1000: time.Minute} {
		if got := PauseAfter(fails); got != want {
			t.Errorf("after %d: %s, want %s", fails, got, want)
		}
	}
}
