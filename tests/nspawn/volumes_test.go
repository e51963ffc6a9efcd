package nspawn

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/kairos-io/kairos/tests/k3simage"
)

// hostPaths are places of a machine as pods may name them, each with what the pod finds
// there. A pod that finds something else does not start.
var hostPaths = []struct {
	name, path, kind, subPath string
	file                      string // below the mount; empty: the mount itself, which is not written to
}{
	{"directory", "/srv/data", "Directory", "", "from-pod"},
	{"any", "/opt/data", "", "", "from-pod"},
	{"part", "/srv/data", "Directory", "part", "from-pod"},
	{"made", "/mnt/made/here", "DirectoryOrCreate", "", "from-pod"},
	{"file", "/usr/local/etc/one", "File", "", ""},
	{"socket", "/var/run/containerd/containerd.sock", "Socket", "", ""},
	{"device", "/dev/null", "CharDevice", "", ""},
	{"home", "/root", "Directory", "data", "from-pod"},
	{"mounted", "/media/disk", "Directory", "part", "from-pod"},
	{"temporary", "/tmp/data", "Directory", "", "from-pod"},
}

// testVolumes: what a pod names on a worker is what is there, as if the kubelet ran on the
// machine itself; what it writes is the machine's, and outlives the k3s container.
func (r *rig) testVolumes() {
	worker := r.worker()
	r.exec(worker, "sh", "-c", `set -e
		mkdir -p /srv/data/part /opt/data /usr/local/etc /root/data /media/disk /tmp/data
		echo one >/usr/local/etc/one
		mount -t tmpfs -o size=1m tmpfs /media/disk
		mkdir /media/disk/part`)
	type object = map[string]any
	var volumes, mounts []object
	for _, h := range hostPaths {
		volumes = append(volumes, object{"name": h.name, "hostPath": object{"path": h.path, "type": h.kind}})
		mounts = append(mounts, object{"name": h.name, "mountPath": "/at/" + h.name, "subPath": h.subPath})
	}
	pod, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "volumes"},
		"spec": object{
			"nodeName": r.node(worker), "terminationGracePeriodSeconds": 1, "volumes": volumes,
			"containers": []object{{"name": "echo", "image": k3simage.EchoName, "imagePullPolicy": "Never", "volumeMounts": mounts}},
		},
	})
	manifest := filepath.Join(r.Lab.Dir(), "volumes.json")
	if err == nil {
		err = os.WriteFile(manifest, pod, 0o600)
	}
	if err != nil {
		r.Fatal(err)
	}
	r.kubectl("apply", "-f", manifest)
	defer r.kubectl("delete", "pod", "volumes")
	r.kubectl("wait", "--for=condition=Ready", "--timeout=90s", "pod/volumes")
	for _, h := range hostPaths {
		if h.file == "" {
			continue
		}
		r.kubectl("exec", "volumes", "--", "/echo", "write", "/at/"+h.name+"/"+h.file, h.name)
		if got := r.exec(worker, "cat", filepath.Join(h.path, h.subPath, h.file)); got != h.name {
			r.Errorf("%s: the machine has %q", h.name, got)
		}
	}
	if got := r.kubectl("exec", "volumes", "--", "/echo", "read", "/at/file"); strings.TrimSpace(got) != "one" {
		r.Errorf("a file of the machine's: %q", got)
	}
}
