package tests

import (
	"os"
	"os/exec"
	"path/filepath"
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

// maxKairos is how large a person's program may be, stripped, for Linux on amd64.
const maxKairos = 16 << 20

// Whatever a person's computer is, the program is built for it as it is here: no C
// compiler, no tags.
func TestKairosIsForEveryComputer(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(system+"/"+arch, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "kairos")
				build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "../cmd/kairos")
				build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				info, err := os.Stat(file)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d bytes", info.Size())
				if system == "linux" && arch == "amd64" && info.Size() > maxKairos {
					t.Errorf("%d bytes, at most %d: see what was added by `go tool nm -size -sort size`", info.Size(), maxKairos)
				}
			})
		}
	}
}
