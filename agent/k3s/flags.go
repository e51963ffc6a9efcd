package k3s

import (
	"net/netip"
	"os"
	"strconv"

	"github.com/kairos-io/kairos/agent/api"
)

// Role is what k3s is started as.
type Role string

// The roles, named like k3s' subcommands.
const (
	Server Role = "server"
	Agent  Role = "agent"
)

// Flags is what the command line of k3s is made from.
type Flags struct {
	Role     Role
	NodeName string
	Address  netip.Addr // this node's overlay IPv4
	DNSName  string     // this node's name in the mesh, may be empty
	Server   netip.Addr // Agent: overlay address of a server
	Socket   string     // containerd's socket, used as CRI
	Resolv   string     // resolv.conf of pods that want the machine's; "": k3s looks for one
	Files    Files
	Extra    []string // the user's, after ours; a worker gets those that it understands
}

// resolvConf is what the OS image has for pods. k3s itself looks for one once, when it
// starts, and where there is no name server yet it takes a stranger's for good.
const resolvConf = "/run/kairos/resolv.conf"

// ResolvConf returns Flags.Resolv for this machine: "" where it does not run the OS image.
func ResolvConf() string {
	if _, err := os.Stat(resolvConf); err != nil {
		return ""
	}
	return resolvConf
}

// Args returns k3s' arguments, without the program.
//
// Everything listens on the overlay address only: the cluster is not visible
// on the networks below. With flannel's backend off the pods' network is the
// overlay's. The egress proxy is off, because the overlay connects every
// pair of nodes; network policies stay on: they need no flannel.
func (f Flags) Args() []string {
	args := []string{
		string(f.Role),
		"--node-name=" + f.NodeName,
		"--node-ip=" + f.Address.String(),
		// k3s wants the plain path; it puts the scheme where one is needed.
		"--container-runtime-endpoint=" + f.Socket,
		"--kubelet-arg=address=" + f.Address.String(),
		"--kube-proxy-arg=healthz-bind-address=" + f.Address.String(),
	}
	if f.Resolv != "" {
		args = append(args, "--resolv-conf="+f.Resolv)
	}
	if f.Role == Server {
		args = append(args, f.serverArgs()...)
		return append(args, f.Extra...)
	}
	args = append(args,
		"--server=https://"+netip.AddrPortFrom(f.Server, APIPort).String(),
		"--token-file="+f.Files.JoinToken())
	return append(args, forWorker(f.Extra)...)
}

func (f Flags) serverArgs() []string {
	args := []string{
		"--bind-address=" + f.Address.String(),
		"--advertise-address=" + f.Address.String(),
		"--https-listen-port=" + strconv.Itoa(APIPort),
		"--tls-san=" + f.Address.String(),
		"--flannel-backend=none",
		"--egress-selector-mode=disabled",
		"--cluster-cidr=" + api.PodRange.String(),
		"--service-cidr=" + api.ServiceRange.String(),
		"--write-kubeconfig-mode=0600",
		"--token-file=" + f.Files.ServerToken(),
		"--agent-token-file=" + f.Files.AgentToken(),
	}
	if f.DNSName != "" {
		args = append(args, "--tls-san="+f.DNSName)
	}
	return args
}
