//go:build !unix

package identity

// No key is made where no mode keeps a file from other users.
const (
	hasModes  = false
	openFlags = 0
)
