package broadcast

import "testing"

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestEvent(t *testing.T) {
	var e Event
	e.Notify() // nobody waits
	one, two := e.Changed(), e.Changed()
	if closed(one) || closed(two) {
		t.Fatal("woken by what was before")
	}
	e.Notify()
	e.Notify()
	later := e.Changed()
	if !closed(one) || !closed(two) {
		t.Error("not all who waited were woken")
	}
	if closed(later) {
		t.Error("woken by what was before")
	}
}
