//go:build !linux

package poll

import "runtime"

// Yield lets others run who wait for the processor.
func Yield() { runtime.Gosched() }
