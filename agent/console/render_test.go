package console

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

var update = flag.Bool("update", false, "write testdata anew")

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func ready() Facts {
	return Facts{
		Version: "v1.2", Hostname: "kairos-0123", Configured: true, Network: "3f2a-91bc-77de-0a45", Cluster: "home", Role: "server",
		Underlay: []Interface{{"eth0", addrs("192.0.2.7", "2001:db8::7")}, {"eth1", addrs("198.51.100.7")}},
		Overlay:  &Overlay{"kairos0", addrs("10.77.0.1", "fd00:77::1"), 2, 3},
		HostKeys: []string{"SHA256:cRr0Uc7ZB2c4Jw1fXhY0mYcB3u0m8mF0GQ1wC1mXv4M (ED25519)"},
		Logins:   []string{"root", "ada"},
	}
}

// The screens of a machine's life. `go test ./agent/console -update` writes them.
func TestRender(t *testing.T) {
	with := func(change func(*Facts)) Facts {
		f := ready()
		change(&f)
		return f
	}
	scenes := map[string]Facts{
		"ready": ready(),
		"first-boot": {Version: "v1.2", Hostname: "kairos-0123", HostKeys: ready().HostKeys,
			Underlay: []Interface{{"eth0", nil}}},
		"no-cable": {Version: "v1.2", Hostname: "kairos-0123"},
		"waiting": with(func(f *Facts) {
			f.Role, f.Waiting = "", "waiting for 1 more machine with this token (2 of 3 are here)"
			f.Overlay.Connected, f.Overlay.Known = 1, 1
		}),
		"fetching": {Version: "v1.2", Hostname: "kairos", Underlay: ready().Underlay,
			Waiting: "waiting for the configuration of http://192.0.2.1/c.yaml: connection refused"},
		"wrong": {Version: "v1.2", Hostname: "kairos-0123", Underlay: ready().Underlay,
			Problems: []string{"/efi/config.yaml:3: kairos.rolle: unknown key; did you mean role?"}},
		"very-wrong": {Version: "v1.2", Hostname: "kairos-0123", Problems: strings.Split(strings.Repeat("/oem/a.yaml:3: wrong,", 9), ",")[:9]},
		"overlay-down": with(func(f *Facts) {
			f.Overlay, f.Role, f.Logins = nil, "", nil
			f.Notes = []string{"the boot was rolled back: kairos-overlay.service failed"}
		}),
		"many-notes": with(func(f *Facts) {
			f.Notes = strings.Split(strings.Repeat("/oem/a.yaml:3: p2p: nobody reads it,", 9), ",")[:9]
		}),
		"hostile": with(func(f *Facts) {
			f.Waiting = "beta\x1b[2J\x1b]0;owned\x07: \u202enothing \\n \u2028KAIROS2-abcdefghijklmnopqrstuvwxyz234567"
			f.Hostname = "a\nroot login:"
		}),
	}
	for name, f := range scenes {
		t.Run(name, func(t *testing.T) {
			got := Render(f)
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			for _, r := range got {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Errorf("it holds %U", r)
				}
			}
			if name != "hostile" {
				for line := range strings.Lines(got) {
					if len(line) > 80 {
						t.Errorf("wider than a terminal: %q", line)
					}
				}
			}
		})
	}
}

// agetty takes a backslash for an escape: \4 shows an address, \S runs through os-release.
func TestIssueEscapes(t *testing.T) {
	if got := string(Issue(`a\4b\\`)); got != `a\\4b\\\\` {
		t.Errorf("got %s", got)
	}
}
