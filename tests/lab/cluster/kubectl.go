package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/kairos-io/kairos/tests/lab"
)

// Kubectl runs the host's kubectl where the machine is: in its network
// namespace, with a kubeconfig that the machine's own `kairos` gives out.
func Kubectl(ctx context.Context, m *lab.Machine, args ...string) (string, error) {
	kubeconfig, err := m.Exec(ctx, "kairos", "get-kubeconfig")
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp("", "kubeconfig-")
	if err != nil {
		return "", fmt.Errorf("write the kubeconfig: %w", err)
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(kubeconfig); err != nil {
		return "", fmt.Errorf("write the kubeconfig: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("write the kubeconfig: %w", err)
	}
	return KubectlWith(ctx, m, f.Name(), args...)
}

// KubectlWith is Kubectl with a kubeconfig that is a file of the host.
func KubectlWith(ctx context.Context, m *lab.Machine, kubeconfig string, args ...string) (string, error) {
	pid, err := m.Leader()
	if err != nil {
		return "", err
	}
	enter := []string{fmt.Sprintf("--net=/proc/%d/ns/net", pid), "kubectl", "--kubeconfig", kubeconfig, "--request-timeout=20s"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// Nodes is what Kubernetes says of its nodes: name -> status and roles, as in
// "Ready control-plane,master".
func Nodes(ctx context.Context, server *lab.Machine, kubeconfig string) (map[string]string, error) {
	args := []string{"get", "nodes", "--no-headers"}
	var out string
	var err error
	if kubeconfig == "" {
		out, err = Kubectl(ctx, server, args...)
	} else {
		out, err = KubectlWith(ctx, server, kubeconfig, args...)
	}
	if err != nil {
		return nil, err
	}
	nodes := map[string]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 2 {
			nodes[f[0]] = f[1] + " " + f[2]
		}
	}
	return nodes, nil
}

// AwaitNodes waits until Kubernetes calls count nodes Ready. An empty kubeconfig
// stands for one that the server's own `kairos` gives out.
func AwaitNodes(ctx context.Context, server *lab.Machine, kubeconfig string, count int) error {
	for {
		nodes, err := Nodes(ctx, server, kubeconfig)
		ready := 0
		for _, state := range nodes {
			if strings.HasPrefix(state, "Ready ") {
				ready++
			}
		}
		if ready >= count {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %d ready nodes: %w; last seen: %v, %v", count, context.Cause(ctx), nodes, err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}
