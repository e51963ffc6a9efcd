package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/kairos-io/kairos/tests/lab"
)

// handToken joins the machines of ByHand; it protects nothing.
const handToken = "a-token-for-a-stopwatch"

// ByHand boots machines of the same image on which somebody has written units
// for a k3s server and its agents, with the addresses of the lab's network and a
// fixed pod range each, and no part of ours runs. It returns as soon as all
// are Ready: what a person with everything prepared can reach.
func ByHand(ctx context.Context, l *lab.Lab, b Built, count int) error {
	var server *lab.Machine
	for i := 1; i <= count; i++ {
		name := fmt.Sprintf("hand%d", i)
		config, err := b.Machine(name, "", handFiles(l, i)...)
		if err != nil {
			return err
		}
		config.Binds[b.K3s.Binary] = "/usr/local/bin/k3s"
		m, err := l.AddNspawn(ctx, config)
		if err != nil {
			return err
		}
		if server == nil {
			server = m
		}
	}
	for {
		root, err := server.Root()
		if err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = AwaitNodes(wait, server, root+"/etc/rancher/k3s/k3s.yaml", count)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// handFiles is what the person wrote for the machine with this number.
func handFiles(l *lab.Lab, number int) []lab.File {
	role := fmt.Sprintf("agent --server=https://%s:6443", l.AddrOf(1))
	if number == 1 {
		role = "server --flannel-backend=none"
	}
	unit := fmt.Sprintf(`[Unit]
After=containerd.service network.target
Wants=containerd.service
[Service]
ExecStart=/usr/local/bin/k3s %s --token=%s --node-ip=%s --container-runtime-endpoint=/run/containerd/containerd.sock
Restart=always
RestartSec=1
KillMode=process
`, role, handToken, l.AddrOf(number))
	cni := fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "hand", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.42.%d.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}, {"type": "portmap", "capabilities": {"portMappings": true}}]}
`, number-1)
	const units = "/etc/systemd/system/"
	files := []lab.File{
		{Path: units + "hand.service", Text: unit},
		{Path: units + "multi-user.target.wants/hand.service", Link: "../hand.service"},
		{Path: "/etc/cni/net.d/10-hand.conflist", Text: cni},
	}
	for _, ours := range []string{"kairos.target", "kairos-config.service", "kairos-overlay.service", "kairos-agent.service"} {
		files = append(files, lab.File{Path: units + ours, Link: "/dev/null"})
	}
	return files
}
