package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Where configuration comes from, in the order of reading.
func TestSourcesInTheirOrder(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"etc/kairos/b.yaml", "etc/kairos/a.yaml", "oem/99.yaml", "oem/100.yaml", "var/lib/cloud/instance/cloud-config.txt",
		"etc/kairos/c.yml", "etc/kairos/sub/d.yaml", "oem/.hidden", "var/lib/cloud/instance/user-data.txt"} {
		write(t, dir, f, "#cloud-config\n")
	}
	got, err := Sources(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"var/lib/cloud/instance/cloud-config.txt", "oem/100.yaml", "oem/99.yaml", "etc/kairos/a.yaml", "etc/kairos/b.yaml"}
	for i := range want {
		want[i] = filepath.Join(dir, want[i])
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, err := Sources(t.TempDir()); err != nil || len(got) != 0 {
		t.Errorf("an empty machine: %q, %v", got, err)
	}
}

// The later file wins key by key, whichever the two are.
func TestLaterSourceWins(t *testing.T) {
	paths := []string{"var/lib/cloud/instance/cloud-config.txt", "oem/10.yaml", "oem/20.yaml", "etc/kairos/a.yaml", "etc/kairos/b.yaml"}
	tok := newToken(t)
	for i, early := range paths {
		for _, late := range paths[i+1:] {
			dir := t.TempDir()
			write(t, dir, late, "#cloud-config\nkairos:\n  network_id: late\n")
			first := write(t, dir, early, block(tok, "network_id: early\nrole: worker"))
			files, err := Sources(dir)
			if err != nil {
				t.Fatal(err)
			}
			l, err := Load(files...)
			if err != nil {
				t.Fatal(err)
			}
			if l.Config.NetworkID != "late" || l.Config.Role != RoleWorker || l.Origins["kairos.role"].File != first {
				t.Errorf("%s, then %s: %s from %v", early, late, l.Config.NetworkID, l.Origins["kairos.network_id"])
			}
		}
	}
}

// How each kind of value is merged: mappings by key, everything else as a whole.
func TestHowValuesMerge(t *testing.T) {
	tok := newToken(t)
	for _, tc := range []struct {
		name, first, second string
		check               func(Config) any
		want                any
	}{
		{"text", "role: worker", "role: master", func(c Config) any { return c.Role }, RoleMaster},
		{"text back to empty", "role: worker", `role: ""`, func(c Config) any { return c.Role }, RoleAuto},
		{"boolean back to the default", "dns: false", "dns: true", func(c Config) any { return c.DNS }, true},
		{"number back to zero", "overlay: {mtu: 1400}", "overlay: {mtu: 0}", func(c Config) any { return c.Overlay.MTU }, 0},
		{"keys of one mapping", "overlay: {mtu: 1400}", "overlay: {mdns: false}", func(c Config) any { return []any{c.Overlay.MTU, c.Overlay.MDNS} }, []any{1400, false}},
		{"an empty mapping", "overlay: {mtu: 1400}", "overlay:", func(c Config) any { return c.Overlay.MTU }, 1400},
		{"list", "overlay: {peers: ['a:1', 'b:1']}", "overlay: {peers: ['c:1']}", func(c Config) any { return c.Overlay.Peers }, []string{"c:1"}},
		{"list to nothing", "overlay: {peers: ['a:1']}", "overlay: {peers: []}", func(c Config) any { return c.Overlay.Peers }, []string{}},
		{"arguments are a list", "k3s: {args: ['--debug']}", "k3s: {args: ['--disable=traefik']}", func(c Config) any { return c.K3s.Args }, []string{"--disable=traefik"}},
		{"environment", "k3s: {env: {A: x, B: x}}", "k3s: {env: {B: y, C: y}}", func(c Config) any { return c.K3s.Env }, map[string]Secret{"A": "x", "B": "y", "C": "y"}},
		{"environment, nothing new", "k3s: {env: {A: x}}", "k3s: {env: {}}", func(c Config) any { return c.K3s.Env }, map[string]Secret{"A": "x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := Load(write(t, dir, "1.yaml", block(tok, tc.first)), write(t, dir, "2.yaml", "#cloud-config\nkairos:\n  "+tc.second+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.check(l.Config); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// A bad value is told although a later file would have covered it: somebody
// wrote it and believes in it.
func TestCoveredMistakeIsTold(t *testing.T) {
	dir := t.TempDir()
	first := write(t, dir, "1.yaml", block(newToken(t), "role: boss"))
	_, err := Load(first, write(t, dir, "2.yaml", "#cloud-config\nkairos:\n  role: worker\n"))
	if err == nil || !strings.HasPrefix(err.Error(), first+":4: kairos.role: ") {
		t.Errorf("got %v", err)
	}
}

// A token in a later file replaces the first; one that is bad there is not
// passed over in favour of the first.
func TestTokenOfALaterFile(t *testing.T) {
	dir, one, two := t.TempDir(), newToken(t), newToken(t)
	first := write(t, dir, "1.yaml", block(one, ""))
	l, err := Load(first, write(t, dir, "2.yaml", block(two, "")))
	if err != nil || l.Config.NetworkToken.Reveal() != two.Reveal() {
		t.Errorf("the later token does not win: %v", err)
	}
	bad := write(t, dir, "3.yaml", "#cloud-config\nkairos:\n  network_token: rubbish\n")
	if _, err := Load(first, bad); err == nil || !strings.HasPrefix(err.Error(), bad+":3: kairos.network_token: ") {
		t.Errorf("got %v", err)
	}
}
