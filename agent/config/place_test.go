package config

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/token"
)

// disk is a machine's, with one source.
type disk struct {
	Place
	t     *testing.T
	token string
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	root := t.TempDir()
	d := &disk{Place{Root: root, Dir: filepath.Join(root, "run/kairos/config")}, t, newToken(t).Reveal()}
	if err := os.MkdirAll(filepath.Join(root, "oem"), 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

// write gives the machine a kairos block with the token on its first line.
func (d *disk) write(block string) {
	d.t.Helper()
	text := "#cloud-config\nkairos:\n  network_token: " + d.token + "\n" + block
	if err := os.WriteFile(filepath.Join(d.Root, "oem/a.yaml"), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) boot() {
	d.t.Helper()
	if err := os.RemoveAll(d.Dir); err != nil {
		d.t.Fatal(err)
	}
}

// A typo in a file that is changed takes nothing out of force, in this boot and in
// the next ones, and says where it is.
func TestLastGoodConfigurationStays(t *testing.T) {
	d := newDisk(t)
	d.write("  rolle: x\n")
	if _, err := d.Merge(false); err == nil || d.InForce() != nil {
		t.Fatalf("without a good one: %v, and in force is %q", err, d.InForce())
	}
	d.write("  role: worker\n")
	if _, err := d.Merge(false); err != nil {
		t.Fatal(err)
	}
	good := string(d.InForce())
	d.write("  rolle: master\n")
	for _, when := range []string{"at once", "after a boot", "after another one"} {
		_, err := d.Merge(true)
		var problems Problems
		if !errors.As(err, &problems) || !strings.Contains(problems.Error(), "oem/a.yaml:4: kairos.rolle: unknown key") || strings.Contains(err.Error(), d.token) {
			t.Errorf("%s: got %v", when, err)
		}
		if got := string(d.InForce()); got != good {
			t.Errorf("%s in force is %q", when, got)
		}
		for _, f := range []string{filepath.Join(d.Dir, OverlayFile), filepath.Join(d.Root, lastGood, KairosFile)} {
			if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", when, info, err)
			}
		}
		d.boot()
	}
	if err := os.Remove(filepath.Join(d.Root, "oem/a.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Merge(true); !errors.Is(err, ErrNoBlock) || string(d.InForce()) != good {
		t.Errorf("without any: %v, in force is %q", err, d.InForce())
	}
	d.write("  role: master\n")
	if l, err := d.Merge(true); err != nil || l.Config.Role != RoleMaster || string(d.InForce()) == good {
		t.Errorf("corrected: %v, in force is %q", err, d.InForce())
	}
}

// What a machine of a cluster cannot change is refused with the reason.
func TestWhatCannotChange(t *testing.T) {
	for _, tt := range []struct {
		name, block string
		token       bool // another one
		joined      bool
		want        string // "": taken
	}{
		{"everyday", "  network_id: home\n  k3s: {args: [--debug]}\n", false, true, ""},
		{"network_id", "  network_id: work\n", false, true, `oem/a.yaml:4: kairos.network_id: cannot change on a machine that takes part in the cluster of "home"`},
		{"network_id, taken out", "", false, true, `oem/a.yaml: kairos.network_id: cannot change`},
		{"network_id, before there is a cluster", "  network_id: work\n", false, false, ""},
		{"the range", "  network_id: home\n  overlay: {cidr: 10.99.0.0/16}\n", false, true, "oem/a.yaml:5: kairos.overlay.cidr: cannot change"},
		{"the token", "  network_id: home\n", true, true, "oem/a.yaml:3: kairos.network_token: cannot become that of another network"},
		{"the token, before there is a cluster", "  network_id: home\n", true, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisk(t)
			d.write("  network_id: home\n")
			if _, err := d.Merge(false); err != nil {
				t.Fatal(err)
			}
			good := string(d.InForce())
			if tt.token {
				d.token = newToken(t).Reveal()
			}
			d.write(tt.block)
			_, err := d.Merge(tt.joined)
			if tt.want == "" {
				if err != nil || string(d.InForce()) == good {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "kairos reset") || string(d.InForce()) != good {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What is the same is not written again: somebody watches for changes.
func TestMergeWritesChangesOnly(t *testing.T) {
	d := newDisk(t)
	d.write("  k3s: {args: [--debug]}\n")
	look := func() (string, os.FileInfo) {
		t.Helper()
		if _, err := d.Merge(false); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(d.Dir, OverlayFile))
		if err != nil {
			t.Fatal(err)
		}
		return d.Stamp(), info
	}
	stamp, file := look()
	if again, same := look(); again != stamp || !os.SameFile(file, same) {
		t.Errorf("written again: %s, before %s", again, stamp)
	}
	d.write("  k3s: {args: [--debug, --vmodule=x]}\n")
	if d.Stamp() == stamp {
		t.Error("a change does not show")
	}
	if _, same := look(); !os.SameFile(file, same) {
		t.Error("the network is told of what is k3s'")
	}
}

func TestChangedAndRestarts(t *testing.T) {
	for _, tt := range []struct {
		edit     func(*Config)
		keys     string
		restarts string
	}{
		{func(*Config) {}, "", "kairos-agent"},
		{func(c *Config) { c.K3s.Args = []string{"--debug"}; c.OS.Image = "x" }, "k3s.args os.image", "kairos-agent k3s"},
		{func(c *Config) { c.K3s.Env = map[string]Secret{"A": "b"} }, "k3s.env", "kairos-agent k3s"},
		{func(c *Config) { c.Overlay.MTU = 1300 }, "overlay.mtu", "kairos-agent kairos-overlay"},
		{func(c *Config) { c.NetworkToken, _ = token.Generate(rand.Reader, 3) }, "network_token", "kairos-agent kairos-overlay"},
		{func(c *Config) { c.Cluster.Enabled = false }, "cluster.enabled", "kairos-agent"},
	} {
		next := Default()
		tt.edit(&next)
		keys := Changed(Default(), next)
		if strings.Join(keys, " ") != tt.keys || !slices.Equal(Restarts(keys), strings.Fields(tt.restarts)) {
			t.Errorf("got %q, and restarts %q; want %q and %q", keys, Restarts(keys), tt.keys, tt.restarts)
		}
	}
}
