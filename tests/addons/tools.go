//go:build tools

// Package addons pins the sources of what k3s deploys beside Kubernetes, in the versions
// of the k3s that machines run by default, so that tests run the very same programs.
package addons

import (
	_ "github.com/coredns/coredns"
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
