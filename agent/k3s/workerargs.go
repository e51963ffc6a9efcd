package k3s

import "strings"

// agentFlags are the flags that `k3s agent` has besides those that Flags sets.
// One configuration file serves all machines, so that a worker meets flags that
// only a server understands; k3s would refuse to start with them.
var agentFlags = flagSet("airgap-extra-registry", "debug", "disable-apiserver-lb", "disable-default-registry-endpoint", "enable-pprof",
	"image-credential-provider-bin-dir", "image-credential-provider-config", "kube-proxy-arg", "kubelet-arg", "node-label", "node-taint",
	"prefer-bundled-bin", "protect-kernel-defaults", "resolv-conf", "selinux", "v", "vmodule")

func flagSet(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// forWorker returns the user's arguments that a worker understands.
func forWorker(args []string) []string {
	var out []string
	keep := false
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
			keep = agentFlags[name]
		}
		// An argument without a dash is the value of the flag before it.
		if keep {
			out = append(out, a)
		}
	}
	return out
}
