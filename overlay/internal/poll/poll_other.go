//go:build !linux

package poll

import (
	"net"
	"runtime"
)

// Conn returns conn.
func Conn(conn net.Conn) net.Conn { return conn }

// Yield lets others run who wait for the processor.
func Yield() { runtime.Gosched() }
