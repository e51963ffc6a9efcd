// Package broadcast tells any number of goroutines that something is another one
// than it was. It carries no value: whoever is woken looks for itself.
package broadcast

import "sync"

// Event is something that happens again and again. The zero Event is ready, and
// it is safe for concurrent use. Taking the channel before looking at what it
// stands for misses nothing:
//
//	changed := e.Changed()
//	look()
//	<-changed
type Event struct {
	mu      sync.Mutex
	changed chan struct{} // nil: nobody waits
}

// Changed returns a channel that is closed at the next Notify.
func (e *Event) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changed == nil {
		e.changed = make(chan struct{})
	}
	return e.changed
}

// Notify wakes all who wait. It waits for nobody, so that it may be called under a lock.
func (e *Event) Notify() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}
