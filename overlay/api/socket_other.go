//go:build !linux

package api

import (
	"errors"
	"fmt"
	"net"
)

// ListenUnix fails: whoever connects could not be told apart.
func ListenUnix(path string, _ int) (net.Listener, error) {
	return nil, fmt.Errorf("listen on %s: %w", path, errors.ErrUnsupported)
}

// PeerUID knows nobody.
func PeerUID(net.Conn) (int, error) { return 0, errors.ErrUnsupported }
