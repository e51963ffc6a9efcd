//go:build !windows

package api

import "syscall"

// connRefused: nobody listens at an address or a socket.
const connRefused = syscall.ECONNREFUSED
