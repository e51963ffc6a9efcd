package api

import "syscall"

// connRefused is WSAECONNREFUSED: syscall.ECONNREFUSED is a number that no call of
// Windows returns.
const connRefused = syscall.Errno(10061)
