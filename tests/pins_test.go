package tests

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/modfile"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/image/builder"
)

// pinsFile is where the versions of everything stand that others made and that is
// no Go module: images, the Debian suite, archives, lists of packages.
const pinsFile = "image/builder/pins.go"

// pinned are the texts that name such a thing.
var pinned = []struct {
	what string
	text *regexp.Regexp
}{
	{"an image", regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]+)?/[a-z0-9._/-]+:[A-Za-z0-9._-]+$`)},
	{"a Debian suite", regexp.MustCompile(`^(bookworm|trixie|forky|sid)(-updates|-security)?$`)},
	{"a Debian archive", regexp.MustCompile(`^https?://[a-z0-9.-]*debian\.org/`)},
}

// pinnedElsewhere are the exceptions, by file. The agent cannot know the builder,
// so it says again which k3s it was made for: TestPinsAgree holds the two together.
var pinnedElsewhere = map[string]string{"agent/k3s/doc.go": builder.K3s}

// checkPins finds versions that stand anywhere but in pinsFile. Tests and what
// belongs to them make images of their own.
func checkPins(all []*pkg) []string {
	var faults []string
	for _, p := range all {
		if matches(p.path, "tests/...") {
			continue
		}
		for _, s := range p.sources {
			if s.test() || s.name == pinsFile {
				continue
			}
			for n := range ast.Preorder(s.ast) {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					continue
				}
				text, err := strconv.Unquote(lit.Value)
				if err != nil || text == pinnedElsewhere[s.name] {
					continue
				}
				for _, pin := range pinned {
					if pin.text.MatchString(text) {
						faults = append(faults, fmt.Sprintf("%s: %q is %s: it belongs into %s", s.at(lit.Pos()), text, pin.what, pinsFile))
					}
				}
			}
		}
	}
	return faults
}

// Where the same version has to stand a second time, it is the same.
func TestPinsAgree(t *testing.T) {
	if k3s.DefaultImage != builder.K3s {
		t.Errorf("the agent starts %s, the images are made for %s", k3s.DefaultImage, builder.K3s)
	}
	addons, err := builder.WithAddons(nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, name := range map[string]string{"github.com/coredns/coredns": "mirrored-coredns-coredns:", "sigs.k8s.io/metrics-server": "mirrored-metrics-server:v"} {
		want := "docker.io/rancher/" + name + strings.TrimPrefix(versionIn("addons/go.mod", path), "v")
		if !slices.ContainsFunc(addons, func(b builder.Baked) bool { return b.Name == want }) {
			t.Errorf("the tests run %s, and that is none of k3s' add-ons: %v", want, addons)
		}
	}
	raw, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	minor := strings.Join(strings.Split(mod.Go.Version, ".")[:2], ".")
	earthfile, err := os.ReadFile("../Earthfile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(earthfile)) {
		image, ok := strings.CutPrefix(strings.TrimSpace(line), "FROM ")
		if ok && !strings.HasPrefix(image, "+") && image != "golang:"+minor+"-"+builder.Suite {
			t.Errorf("Earthfile builds from %s; go.mod and %s say Go %s on %s", image, pinsFile, minor, builder.Suite)
		}
	}
}

// lines are the releases that the images have of others', and the day on which nobody
// looks after them any more, as those who make them have said.
var lines = []struct {
	what, pinned, line string
	ends               time.Time
}{
	{"k3s", builder.K3s[strings.LastIndexByte(builder.K3s, ':')+1:], "v1.35.", time.Date(2027, time.February, 28, 0, 0, 0, 0, time.UTC)},
	{"containerd", versionIn("../image/builder/containerd/go.mod", "github.com/containerd/containerd/v2"), "v2.3.", time.Date(2028, time.April, 30, 0, 0, 0, 0, time.UTC)},
}

// versionIn is which version of a module another one asks for.
func versionIn(file, path string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	mod, err := modfile.ParseLax(file, raw, nil)
	if err != nil {
		return err.Error()
	}
	for _, r := range mod.Require {
		if r.Mod.Path == path {
			return r.Mod.Version
		}
	}
	return "none in " + file
}

// Two months are left to move to the next line. This is the one test that depends on the
// date: it is there to fail in time.
func TestPinnedLinesAreLookedAfter(t *testing.T) {
	for _, l := range lines {
		if !strings.HasPrefix(l.pinned, l.line) {
			t.Errorf("%s is %s, and the end of %sx is known: say here when the new line ends", l.what, l.pinned, l.line)
		}
		if left := time.Until(l.ends); left < 60*24*time.Hour {
			t.Errorf("%s %s ends on %s: pin the next line", l.what, l.pinned, l.ends.Format(time.DateOnly))
		}
	}
}
