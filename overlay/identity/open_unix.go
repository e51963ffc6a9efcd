//go:build unix

package identity

import "syscall"

// hasModes: a file can be kept from other users.
const hasModes = true

// openFlags keep a link in a key's place from being followed, and a FIFO, which is
// refused then, from being waited for.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
