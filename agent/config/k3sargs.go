package config

import (
	"fmt"
	"strings"
)

// ownedFlags are k3s flags that Kairos sets itself or that would break what it
// promises, each with the reason that a person is told.
var ownedFlags = map[string]string{
	"node-ip":                    whyAddress,
	"node-external-ip":           whyAddress,
	"node-internal-dns":          whyAddress,
	"node-external-dns":          whyAddress,
	"advertise-address":          whyAddress,
	"advertise-port":             whyAddress,
	"bind-address":               whyAddress,
	"https-listen-port":          whyAddress,
	"supervisor-port":            whyAddress,
	"apiserver-port":             whyAddress,
	"apiserver-bind-address":     whyAddress,
	"lb-server-port":             whyAddress,
	"token":                      whyToken,
	"t":                          whyToken,
	"token-file":                 whyToken,
	"agent-token":                whyToken,
	"agent-token-file":           whyToken,
	"server":                     whyJoin,
	"s":                          whyJoin,
	"cluster-init":               whyJoin,
	"cluster-reset":              whyJoin,
	"cluster-reset-restore-path": whyJoin,
	"datastore-endpoint":         whyDatastore,
	"datastore-cafile":           whyDatastore,
	"datastore-certfile":         whyDatastore,
	"datastore-keyfile":          whyDatastore,
	"disable-etcd":               whyDatastore,
	"disable-apiserver":          whyDatastore,
	"disable-controller-manager": whyDatastore,
	"disable-scheduler":          whyDatastore,
	"disable-agent":              whyDatastore,
	"flannel-backend":            whyNetwork,
	"flannel-iface":              whyNetwork,
	"flannel-conf":               whyNetwork,
	"flannel-cni-conf":           whyNetwork,
	"flannel-external-ip":        whyNetwork,
	"flannel-ipv6-masq":          whyNetwork,
	"vpn-auth":                   whyNetwork,
	"vpn-auth-file":              whyNetwork,
	"cluster-cidr":               whyNetwork,
	"service-cidr":               whyNetwork,
	"cluster-dns":                whyNetwork,
	"node-name":                  whyName,
	"with-node-id":               whyName,
	"data-dir":                   whyFiles,
	"d":                          whyFiles,
	"config":                     whyFiles,
	"c":                          whyFiles,
	"write-kubeconfig":           whyFiles,
	"write-kubeconfig-mode":      whyFiles,
	"write-kubeconfig-group":     whyFiles,
	"log":                        whyFiles,
	"l":                          whyFiles,
	"alsologtostderr":            whyFiles,
	"container-runtime-endpoint": whyRuntime,
	"docker":                     whyRuntime,
	"rootless":                   whyRuntime,
	"default-runtime":            whyRuntime,
	"snapshotter":                whyRuntime,
	"image-service-endpoint":     whyRuntime,
	"nonroot-devices":            whyRuntime,
	"pause-image":                whyPause,
	"private-registry":           whyRegistry,
	"embedded-registry":          whyImages,
	"etcd-s3-access-key":         whySecret,
	"etcd-s3-secret-key":         whySecret,
	"etcd-s3-session-token":      whySecret,
}

const (
	whyAddress   = "the addresses of a node are the overlay's"
	whyToken     = "join tokens are made and exchanged by Kairos, and have no place in arguments"
	whyJoin      = "who creates the cluster and who joins is agreed on by the nodes"
	whyDatastore = "the control plane and its datastore are Kairos' to run"
	whyNetwork   = "the overlay is the pod network"
	whyName      = "the node name follows from the hostname and the node's key"
	whyFiles     = "Kairos keeps k3s' files and output"
	whyRuntime   = "pods run in the machine's containerd, which /etc/containerd/conf.d configures"
	whyPause     = "pods run in the machine's containerd: set pinned_images.sandbox in /etc/containerd/conf.d"
	whyRegistry  = "pods run in the machine's containerd: put registries and mirrors into /etc/containerd/certs.d/HOST/hosts.toml"
	whyImages    = "the machines give each other what their OS carries; others come from the mirrors in /etc/containerd/certs.d"
	whySecret    = "arguments are readable by everybody on the machine: put it into k3s.env as AWS_..."
)

// ownedKubelet are kubelet settings that would undo owned flags of k3s.
var ownedKubelet = map[string]string{
	"node-ip": whyAddress, "address": whyAddress, "hostname-override": whyName,
	"container-runtime-endpoint": whyRuntime, "image-service-endpoint": whyRuntime,
	"cgroup-driver": whyRuntime, "kubeconfig": whyFiles, "root-dir": whyFiles, "config": whyFiles, "pod-cidr": whyNetwork,
}

// checkArg refuses arguments that Kairos owns. Only the flag's name is quoted:
// a value may be secret.
func checkArg(arg string) (reason, suggest string) {
	switch {
	case arg == "":
		return "is empty", ""
	case strings.ContainsRune(arg, 0):
		return "holds a zero byte", ""
	case arg == "server" || arg == "agent":
		return "is the role, which the nodes agree on: list flags only", ""
	case arg == "-" || strings.Trim(arg, "-") == "":
		return fmt.Sprintf("%q is not a flag", shorten(arg)), ""
	case arg != strings.TrimSpace(arg):
		return "has white space around it", ""
	}
	if !strings.HasPrefix(arg, "-") {
		return "", "" // the value of the flag before it: see checkArgs
	}
	name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	name, _, spaced := strings.Cut(name, " ")
	if why, ok := ownedFlags[name]; ok {
		return fmt.Sprintf("--%s cannot be set: %s", name, why), ""
	}
	if spaced {
		return fmt.Sprintf("--%s and its value are one item with a space between", shorten(name)), "--" + shorten(name) + "=VALUE"
	}
	if hasValue && name == "kubelet-arg" {
		return ownedKubeletArg(value)
	}
	return "", ""
}

// checkArgs refuses owned kubelet settings in the form of two items.
func checkArgs(args []string) (reason, suggest string) {
	for i, arg := range args[:max(0, len(args)-1)] {
		if strings.HasPrefix(arg, "-") && strings.TrimLeft(arg, "-") == "kubelet-arg" {
			if reason, suggest := ownedKubeletArg(args[i+1]); reason != "" {
				return reason, suggest
			}
		}
	}
	return "", ""
}

func ownedKubeletArg(value string) (reason, suggest string) {
	name, _, ok := strings.Cut(strings.TrimLeft(value, "-"), "=")
	if why, owned := ownedKubelet[name]; ok && owned {
		return fmt.Sprintf("kubelet-arg %s cannot be set: %s", name, why), ""
	}
	return "", ""
}

// checkEnvName refuses names that are none, and those by which k3s takes flags that Kairos owns.
func checkEnvName(name string) (reason string) {
	switch {
	case name == "" || strings.ContainsAny(name, "=\x00 \t\n"):
		return "is not the name of an environment variable"
	case strings.HasPrefix(name, "K3S_"), name == "CONTAINERD_ADDRESS", name == "CONTAINER_RUNTIME_ENDPOINT":
		return "cannot be set: k3s would take it for a flag that Kairos sets; use k3s.args for others"
	}
	return ""
}
