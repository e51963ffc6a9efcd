//go:build !linux

package poll

import "runtime"

// Own gives the calling goroutine a thread of its own until it ends.
func Own() (end func()) {
	runtime.LockOSThread()
	return func() {}
}

// Yield lets others run who wait for the processor.
func Yield() { runtime.Gosched() }
