package tests

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// notAPersons is what a person's program never contains, however indirectly: what
// only a machine of the cluster does, and what builds one.
var notAPersons = []string{
	"github.com/containerd/", "github.com/google/go-containerregistry/", "github.com/opencontainers/", "github.com/spdx/",
	"github.com/coreos/go-systemd/", "github.com/invopop/jsonschema", "go.yaml.in/", "k8s.io/", "net/http/pprof",
	module + "/image", module + "/systemd",
}

// cmd/kairos is what a person has on a laptop.
func TestKairosIsAPersonsProgram(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "../cmd/kairos").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(out))
	if !slices.Contains(all, module+"/overlay") {
		t.Fatalf("%d packages, and the network is not among them", len(all))
	}
	for _, p := range all {
		if slices.ContainsFunc(notAPersons, func(prefix string) bool { return strings.HasPrefix(p, prefix) }) {
			t.Errorf("cmd/kairos contains %s", p)
		}
		own, ok := strings.CutPrefix(p, module+"/")
		if ok && strings.HasPrefix(own, "agent") && own != "agent/health" && !slices.Contains(ofMember, own) {
			t.Errorf("cmd/kairos contains %s; of the agent only %s", p, strings.Join(ofMember, ", "))
		}
	}
}
