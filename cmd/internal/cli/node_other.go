//go:build !linux

package cli

import "errors"

// execute cannot happen: a node runs Linux.
func execute(string, []string) error { return errors.ErrUnsupported }

// noDaemonHint is for who asks a machine on which nothing of ours can run.
const noDaemonHint = "ask a node: `ssh NODE sudo kairos get-kubeconfig`; `ssh -N -L 8080:localhost:8080 NODE` makes `kairos status` show its network here"
