//go:build tools

// Package tools pins the networks that the bench compares ours with.
package tools

import (
	_ "github.com/slackhq/nebula/cmd/nebula"
	_ "github.com/slackhq/nebula/cmd/nebula-cert"
	_ "golang.zx2c4.com/wireguard"
)
