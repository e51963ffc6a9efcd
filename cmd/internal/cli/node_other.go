//go:build !linux

package cli

import "errors"

// execute cannot happen: a node runs Linux.
func execute(string, []string) error { return errors.ErrUnsupported }
