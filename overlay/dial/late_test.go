package dial

import (
	"net/netip"
	"testing"
	"time"
)

// A machine that is late makes few dials at once and waits longer before it makes more,
// and forgets that when it is in time again.
func TestLate(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 500 {
		w.s.Learn(0, member(i), []netip.AddrPort{addr(i), addr(1000 + i)})
	}
	w.s.Next(0)
	w.s.late.asked = time.Millisecond
	steps, _ := w.s.Next(2 * time.Second) // two seconds after it asked to be called
	if n := len(steps.Start); n > 2 {
		t.Errorf("%d dials when late", n)
	}
	if d := w.s.late.patience(2 * time.Second); d < time.Second {
		t.Errorf("waits %s longer", d)
	}
	if n := w.s.late.slots(128, 2*time.Second); n > 8 {
		t.Errorf("%d slots", n)
	}
	if n := w.s.late.slots(128, 3*time.Minute); n != 128 || w.s.late.patience(3*time.Minute) != 0 {
		t.Errorf("minutes later %d slots", n)
	}
}

// The first dials after a quiet time are few; when they make nothing late, more follow.
func TestFirstSlots(t *testing.T) {
	w := newWorld(t, nil)
	w.run(time.Hour)
	for i := range 500 {
		w.s.Learn(w.now, member(i), []netip.AddrPort{addr(i)})
	}
	w.run(time.Millisecond)
	if n := len(w.log); n != firstSlots {
		t.Errorf("%d dials at first", n)
	}
	w.run(time.Second)
	if w.most != w.s.limits.Members {
		t.Errorf("%d dials at once after a second", w.most)
	}
}
