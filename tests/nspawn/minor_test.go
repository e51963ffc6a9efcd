package nspawn

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// kept is where a server's data is copied to before another minor version gets it.
const kept = k3s.DefaultDataDir + "/kairos/kept"

// testMinorVersion: the server gets the next minor version of Kubernetes with a system on
// trial, and goes back. The cluster is as it was before, and pods have not noticed.
func (r *rig) testMinorVersion() {
	m := r.machine(r.server())
	pods := r.pods(m.Name())
	r.kubectl("create", "configmap", "before", "--from-literal=is=there")
	// What the firmware of a machine on trial tells, in place of what this one has none of.
	r.exec(m.Name(), "sh", "-c", "mount -t tmpfs tmpfs /sys/firmware && mkdir -p /sys/firmware/efi/efivars && rm /run/kairos/boot-good && "+
		"touch /sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")

	began := time.Now()
	r.wantsK3s(m.Name(), cluster.NextK3s())
	r.runsK3s(m.Name(), cluster.NextK3s())
	r.kubectl("create", "configmap", "after", "--from-literal=is=gone")
	r.Logf("RESULT the next minor version on a server's data after %.0f s", time.Since(began).Seconds())
	if of := r.exec(m.Name(), "cat", kept+"/of.json"); !strings.Contains(of, k3s.DefaultImage) {
		r.Errorf("the copy is of %s", of)
	}

	began = time.Now()
	r.wantsK3s(m.Name(), "")
	r.runsK3s(m.Name(), k3s.DefaultImage)
	r.Logf("RESULT the earlier one and its data back after %.0f s", time.Since(began).Seconds())
	if got := r.kubectl("get", "configmap", "before", "-o", "jsonpath={.data.is}"); got != "there" {
		r.Errorf("what there was before is %q", got)
	}
	if out, err := cluster.Kubectl(r.ctx, m, "get", "configmap", "after"); err == nil || !strings.Contains(err.Error()+out, "not found") {
		r.Errorf("what came after is still there: %s, %v", out, err)
	}
	root, err := m.Root()
	if err != nil {
		r.Fatal(err)
	}
	if _, err := os.Stat(root + kept); !errors.Is(err, os.ErrNotExist) {
		r.Errorf("the copy was not used up: %v", err)
	}
	if now := r.pods(m.Name()); now != pods {
		r.Errorf("before ran\n%s\nafterwards\n%s", pods, now)
	}
	r.exec(m.Name(), "sh", "-c", "umount /sys/firmware && touch /run/kairos/boot-good")
	r.kubectl("delete", "configmap", "before")
	r.checkNodes()
}

// pods are the processes of pods on a machine, by their numbers inside it.
func (r *rig) pods(machine string) string {
	r.Helper()
	return r.exec(machine, "sh", "-c", "ctr -n k8s.io tasks ls | tail -n +2 | sort")
}

// wantsK3s configures k3s.image on a machine; "" for what its OS brings.
func (r *rig) wantsK3s(machine, image string) {
	r.Helper()
	r.write(machine, "/oem/95-k3s.yaml", fmt.Sprintf("#cloud-config\nkairos:\n  k3s: {image: %q}\n", image))
}

// runsK3s waits until the cluster is ready and the machine runs that k3s.
func (r *rig) runsK3s(machine, image string) {
	r.Helper()
	r.eventually(toReady, machine+" runs "+image, func() error {
		if out := r.exec(machine, "ctr", "-n", "kairos", "containers", "ls"); !strings.Contains(out, image) {
			return fmt.Errorf("it has %s", out)
		}
		_, err := cluster.Kubectl(r.ctx, r.machine(machine), "wait", "--for=condition=Ready", "--timeout=1s", "node", r.node(machine))
		return err
	})
}
