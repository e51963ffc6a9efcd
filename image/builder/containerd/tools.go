//go:build tools

// Package containerd says which containerd is in the OS image: a module of its own, so
// that its dependencies and those of our programs are chosen apart. Its go.mod is the
// one place for the version.
package containerd

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
