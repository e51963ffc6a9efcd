package k3s

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// testFlags is a node's command line; the user's part serves both roles.
func testFlags(r Role) Flags {
	return Flags{Role: r, NodeName: "n1-abcdef", Address: netip.MustParseAddr("10.77.1.2"), DNSName: "n1-abcdef.kairos.internal",
		Server: netip.MustParseAddr("10.77.0.9"), Socket: "/run/containerd/containerd.sock", Resolv: "/run/kairos/resolv.conf", Files: Files{Dir: "/d"},
		Extra: []string{"--disable=traefik", "--disable", "servicelb", "--kubelet-arg", "max-pods=50", "--node-label=a=b", "--debug"}}
}

// The whole command lines, in their order. A change here restarts k3s on every
// node that is upgraded, because the flags are part of Spec.Hash.
func TestArgs(t *testing.T) {
	for _, tc := range []struct {
		role Role
		want string
	}{
		{Server, `server
--node-name=n1-abcdef
--node-ip=10.77.1.2
--container-runtime-endpoint=/run/containerd/containerd.sock
--kubelet-arg=address=10.77.1.2
--kube-proxy-arg=healthz-bind-address=10.77.1.2
--resolv-conf=/run/kairos/resolv.conf
--bind-address=10.77.1.2
--advertise-address=10.77.1.2
--https-listen-port=6443
--tls-san=10.77.1.2
--flannel-backend=none
--egress-selector-mode=disabled
--cluster-cidr=10.42.0.0/16
--service-cidr=10.43.0.0/16
--write-kubeconfig-mode=0600
--token-file=/d/kairos/server-token
--agent-token-file=/d/kairos/agent-token
--tls-san=n1-abcdef.kairos.internal
--disable=traefik
--disable
servicelb
--kubelet-arg
max-pods=50
--node-label=a=b
--debug`},
		{Agent, `agent
--node-name=n1-abcdef
--node-ip=10.77.1.2
--container-runtime-endpoint=/run/containerd/containerd.sock
--kubelet-arg=address=10.77.1.2
--kube-proxy-arg=healthz-bind-address=10.77.1.2
--resolv-conf=/run/kairos/resolv.conf
--server=https://10.77.0.9:6443
--token-file=/d/kairos/join-token
--kubelet-arg
max-pods=50
--node-label=a=b
--debug`},
	} {
		t.Run(string(tc.role), func(t *testing.T) {
			if got := strings.Join(testFlags(tc.role).Args(), "\n"); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestArgsWithoutAName(t *testing.T) {
	f := testFlags(Server)
	f.DNSName, f.Extra = "", nil
	args := f.Args()
	if slices.Contains(args, "--tls-san=") || args[len(args)-1] != "--agent-token-file=/d/kairos/agent-token" {
		t.Errorf("got %q", args)
	}
}

// One configuration serves all machines: a worker gets what `k3s agent` knows.
func TestForWorker(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"for both", "--node-label=a=b --kubelet-arg=x=y --debug", "--node-label=a=b --kubelet-arg=x=y --debug"},
		{"for servers only", "--disable=traefik --tls-san=x --etcd-expose-metrics", ""},
		{"value as an item of its own", "--disable traefik --node-taint k=v:NoSchedule", "--node-taint k=v:NoSchedule"},
		{"one dash", "-v 4 -disable traefik", "-v 4"},
		{"value that looks like nothing", "--cluster-domain example --v=2", "--v=2"},
		{"a stray value first", "traefik --debug", "--debug"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(forWorker(strings.Fields(tc.in)), " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
