package cluster

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/tests/lab"
)

// Where the lab's own things are inside a machine.
const (
	labDir    = "/usr/lib/kairos-lab"
	k3sLayout = labDir + "/k3s-image"
	podImages = labDir + "/pod-images"
)

// disks are the directories in which containerd mounts layered file systems,
// or whose free space kubelet measures.
var disks = []string{"/var/lib/containerd", "/var/lib/rancher", "/var/lib/kubelet", "/var/log/pods"}

// k3s' own add-ons that need images from a registry, by the manifests of each. A marker
// file is k3s' way to leave one out; it does nothing on an agent.
var (
	neverHere = []string{"traefik.yaml", "local-storage.yaml"}
	// builtHere are those whose images can be built from source: see WithAddons.
	builtHere = []string{
		"coredns.yaml", "aggregated-metrics-reader.yaml", "auth-delegator.yaml", "auth-reader.yaml",
		"metrics-apiservice.yaml", "metrics-server-deployment.yaml", "metrics-server-service.yaml", "resource-reader.yaml",
	}
)

// containerdDropIn prepares a machine that is a container for containers of
// its own.
const containerdDropIn = `[Service]
ExecStartPre=/bin/sh ` + labDir + `/groups
# Lowering the score needs CAP_SYS_RESOURCE, which the lab's host may lack.
OOMScoreAdjust=0
`

// importDropIn imports the images that pods use.
const importDropIn = `[Service]
ExecStartPost=/bin/sh -c 'for i in ` + podImages + `/*.tar; do ctr -n k8s.io images import $i; done'
`

// Machine is a machine that boots the OS image with the given cloud-config. More
// files, such as a second configuration, may be given. It finds k3s and the images
// of pods in directories of the host.
func (b Built) Machine(name, config string, more ...lab.File) (lab.NspawnConfig, error) {
	c, err := b.Bare(name, config, b.RootFS)
	if err != nil {
		return c, err
	}
	c.Binds = map[string]string{b.K3s.Layout: k3sLayout, filepath.Dir(b.K3s.Archives[0]): podImages}
	c.Files = append(c.Files,
		lab.File{Path: "/etc/kairos/90-lab.yaml", Mode: 0o600, Text: "#cloud-config\nkairos:\n  k3s:\n    image: \"" + b.k3sReference() + "\"\n"},
		lab.File{Path: "/etc/systemd/system/containerd.service.d/91-import.conf", Text: importDropIn})
	c.Files = append(c.Files, more...)
	return c, nil
}

// Bare is a machine that has of Kubernetes what its image brings, if anything.
func (b Built) Bare(name, config, rootFS string) (lab.NspawnConfig, error) {
	groups, err := groupsScript()
	if err != nil {
		return lab.NspawnConfig{}, err
	}
	files := []lab.File{
		{Path: "/oem/config.yaml", Text: config, Mode: 0o600},
		{Path: labDir + "/groups", Text: groups},
		{Path: "/etc/systemd/system/containerd.service.d/90-lab.conf", Text: containerdDropIn},
		{Path: "/etc/systemd/system/kairos-overlay.service.d/90-lab.conf", Text: "[Service]\nOOMScoreAdjust=0\n"},
		{Path: "/etc/systemd/system/kairos-agent.service.d/90-lab.conf", Text: "[Service]\nOOMScoreAdjust=0\n"},
	}
	return lab.NspawnConfig{Name: name, Image: rootFS, Disks: disks, Files: files, Seeds: seeds(neverHere, builtHere)}, nil
}

// WithAddons has k3s deploy those of its add-ons whose images SeedFS carries.
func WithAddons(c lab.NspawnConfig) lab.NspawnConfig {
	c.Seeds = seeds(neverHere)
	return c
}

func (b Built) k3sReference() string { return "oci:" + k3sLayout + "@" + b.K3s.Digest }

// seeds are files on the machine's disks.
func seeds(without ...[]string) []lab.File {
	var files []lab.File
	for _, name := range slices.Concat(without...) {
		files = append(files, lab.File{Path: path.Join("/var/lib/rancher/k3s/server/manifests", name+".skip")})
	}
	return files
}

// groupsScript mounts the machine's control groups afresh: the ones that nspawn
// provides are read-only. With version 2 they are not.
func groupsScript() (string, error) {
	trees, err := lab.Hierarchies()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("set -e\nmount --make-rshared /\nif [ -e /sys/fs/cgroup/cgroup.controllers ]; then exit 0; fi\n")
	for _, dir := range slices.Sorted(maps.Keys(trees)) {
		controllers := trees[dir]
		if controllers == "" || strings.HasPrefix(controllers, "name=") {
			continue
		}
		fmt.Fprintf(&b, "d=/sys/fs/cgroup/%s\nif [ -d $d ] && [ ! -e /run/kairos-lab-%[1]s ]; then mount -t cgroup -o %[2]s cgroup $d; touch /run/kairos-lab-%[1]s; fi\n", dir, controllers)
	}
	return b.String(), nil
}
