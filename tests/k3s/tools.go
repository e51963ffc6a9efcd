//go:build tools

// Package tools pins the k3s that the tests run: the one version that is to be
// had as an ordinary, checksummed Go module. It is end-of-life: for tests only.
// Never regenerate go.sum here: it carries hashes from k3s' own verified go.sum
// for fork modules that no checksum database knows.
package tools

import _ "github.com/k3s-io/k3s/cmd/server"
