//go:build !race

package disk

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// forKubernetes is what k3s, kube-proxy and the pod network need of a kernel: option
// of its configuration -> module, where the kernel's author made it one. After what
// `k3s check-config` and kube-proxy's rules ask for.
var forKubernetes = map[string]string{
	"NAMESPACES": "", "NET_NS": "", "PID_NS": "", "IPC_NS": "", "UTS_NS": "", "SECCOMP_FILTER": "", "KEYS": "", "POSIX_MQUEUE": "",
	"CGROUPS": "", "CGROUP_BPF": "", "CGROUP_DEVICE": "", "CGROUP_FREEZER": "", "CGROUP_PIDS": "", "CGROUP_SCHED": "", "CFS_BANDWIDTH": "",
	"CPUSETS": "", "MEMCG": "", "BLK_CGROUP": "",
	"OVERLAY_FS": "overlay", "TUN": "tun", "VETH": "veth", "BRIDGE": "bridge", "BRIDGE_NETFILTER": "br_netfilter",
	"NF_CONNTRACK": "nf_conntrack", "NF_NAT": "nf_nat", "NF_TABLES": "nf_tables", "NFT_COMPAT": "nft_compat",
	"IP_NF_IPTABLES": "ip_tables", "IP_NF_FILTER": "iptable_filter", "IP_NF_NAT": "iptable_nat", "IP_NF_TARGET_REJECT": "ipt_REJECT",
	"IP6_NF_IPTABLES": "ip6_tables", "IP_SET": "ip_set", "IP_SET_HASH_IP": "ip_set_hash_ip", "IP_SET_HASH_NET": "ip_set_hash_net",
	"NETFILTER_XT_MARK": "xt_mark", "NETFILTER_XT_NAT": "xt_nat", "NETFILTER_XT_SET": "xt_set",
	"NETFILTER_XT_MATCH_ADDRTYPE": "xt_addrtype", "NETFILTER_XT_MATCH_COMMENT": "xt_comment", "NETFILTER_XT_MATCH_CONNTRACK": "xt_conntrack",
	"NETFILTER_XT_MATCH_LIMIT": "xt_limit", "NETFILTER_XT_MATCH_MULTIPORT": "xt_multiport", "NETFILTER_XT_MATCH_NFACCT": "xt_nfacct",
	"NETFILTER_XT_MATCH_PHYSDEV": "xt_physdev", "NETFILTER_XT_MATCH_RECENT": "xt_recent", "NETFILTER_XT_MATCH_STATISTIC": "xt_statistic",
	"NETFILTER_XT_TARGET_MASQUERADE": "xt_MASQUERADE", "NETFILTER_XT_TARGET_NFLOG": "xt_NFLOG", "NETFILTER_XT_TARGET_REDIRECT": "xt_REDIRECT",
}

// checkKernel: the machines of the tests of clusters are containers and use this
// host's kernel; the image's own has to have the same.
func (m *media) checkKernel(t *testing.T) {
	root := m.root(t)
	configs, err := filepath.Glob(filepath.Join(root, "boot/config-*"))
	if err != nil || len(configs) != 1 {
		t.Fatalf("kernel configurations: %q, %v", configs, err)
	}
	text, err := os.ReadFile(configs[0])
	if err != nil {
		t.Fatal(err)
	}
	set := strings.Split(string(text), "\n")
	version := strings.TrimPrefix(filepath.Base(configs[0]), "config-")
	deps, err := os.ReadFile(filepath.Join(root, "usr/lib/modules", version, "modules.dep"))
	if err != nil {
		t.Fatal(err)
	}
	for option, module := range forKubernetes {
		switch {
		case slices.Contains(set, "CONFIG_"+option+"=y"):
		case module == "" || !slices.Contains(set, "CONFIG_"+option+"=m"):
			t.Errorf("the kernel %s has no %s", version, option)
		default:
			m.checkModule(t, filepath.Join(root, "usr/lib/modules", version), string(deps), module)
		}
	}
}

// checkModule: a module that depmod knows, and all that it depends on, are files.
func (m *media) checkModule(t *testing.T, dir, deps, module string) {
	t.Helper()
	for line := range strings.Lines(deps) {
		file, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name, _, _ := strings.Cut(filepath.Base(file), "."); name != module {
			continue
		}
		for _, f := range append(strings.Fields(needs), file) {
			if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
				t.Errorf("%s: %v", module, err)
			}
		}
		return
	}
	t.Errorf("there is no module %s", module)
}
