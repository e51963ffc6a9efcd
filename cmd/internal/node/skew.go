package node

import (
	"context"
	"fmt"
	"path/filepath"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/cmd/internal/cli"
)

// What another k3s may do on this machine, asked before anything is fetched or booted:
// https://kubernetes.io/releases/version-skew-policy. The agent would refuse it after the
// reboot, and the machine come back by itself.

// skew says why the k3s of a release must not come to this machine yet; nil: it may.
func (u *upgrader) skew(ctx context.Context, image string) error {
	if u.k3s != "" {
		return nil // k3s.image counts, whatever the release brings
	}
	next := agentapi.K3sOf(image, "")
	if membershipOf(u.f.root).role == store.Worker {
		n := askLocal(ctx, u.f.sockets)
		return n.serverSkew(next)
	}
	return dataSkew(u.f.root, next)
}

// dataSkew says why a k3s must not have a server's data.
func dataSkew(root string, next agentapi.K3s) error {
	if membershipOf(root).role != store.Server {
		return nil
	}
	v, err := k3s.Files{Dir: filepath.Join(root, k3s.DefaultDataDir)}.Versions()
	if err != nil {
		return err
	}
	switch agentapi.DataStep(v.Ran, v.Kept, next) {
	case agentapi.StepFar:
		return cli.WithHint(fmt.Errorf("it brings %s, and this cluster runs %s: no minor version may be left out", next, v.Ran),
			"go by a release for each minor version between")
	case agentapi.StepDown:
		return cli.WithHint(fmt.Errorf("it brings %s, which must not have this cluster's data: %s has written it", next, v.Ran),
			"take a release with the minor version that runs, or a later one")
	}
	return nil
}

// serverSkew says why a kubelet must not come to this worker before its servers are
// upgraded.
func (n *localNode) serverSkew(next agentapi.K3s) error {
	for _, o := range n.nodes {
		if !n.isServer(o) {
			continue
		}
		claim, _ := o.Rights().Claim(n.agent.Cluster.NetworkID)
		runs := agentapi.K3s{Kubernetes: claim.Kubernetes}
		if runs.Before(next) {
			return cli.WithHint(fmt.Errorf("it brings %s, and server %s runs %s: servers come first", next, agentapi.Printable(o.Name), agentapi.Printable(runs.String())),
				"upgrade %s, and then this machine", agentapi.Printable(o.Name))
		}
	}
	return nil
}

// configuredK3s is k3s.image; "" where it is not set, or not known.
func configuredK3s(root string) string {
	c, err := ownConfig(root, filepath.Join(root, defaultConfigDir, config.KairosFile))
	if err != nil {
		return ""
	}
	return c.K3s.Image
}
