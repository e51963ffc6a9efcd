package podnet

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func testConfig() Config {
	return Config{
		PodCIDR: netip.MustParsePrefix("10.42.3.0/24"), Pods: netip.MustParsePrefix("10.42.0.0/16"),
		Services: netip.MustParsePrefix("10.43.0.0/16"),
		Overlay:  []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd00::/64")},
		Address:  netip.MustParseAddr("10.77.1.2"), Interface: "kairos0", MTU: 1420, Resolver: netip.MustParseAddr("169.254.53.53"),
	}
}

// fakeHost is a machine in a directory; calls collects what was run.
func fakeHost(t *testing.T) (Host, *[]string) {
	t.Helper()
	dir := t.TempDir()
	for k, v := range map[string]string{"net/ipv4/ip_forward": "0\n", "net/bridge/bridge-nf-call-iptables": "1\n"} {
		p := filepath.Join(dir, "sys", k)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	calls := &[]string{}
	return Host{
		ConfDir: filepath.Join(dir, "cni"), ProcSys: filepath.Join(dir, "sys"),
		NFT: func(_ context.Context, s string) error { *calls = append(*calls, "nft"); return nil },
		Run: func(_ context.Context, name string, a ...string) error {
			*calls = append(*calls, name+" "+strings.Join(a, " "))
			if slices.Contains(a, "-C") {
				return errors.New("no such rule")
			}
			return nil
		},
	}, calls
}

func TestApply(t *testing.T) {
	h, calls := fakeHost(t)
	c := testConfig()
	for range 2 {
		if err := h.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(h.ProcSys, "net/ipv4/ip_forward")); err != nil || string(b) != "1" {
		t.Errorf("ip_forward is %q, %v", b, err)
	}
	if n := len(*calls); n != 12 || (*calls)[5] != "ip address replace 169.254.53.53/32 dev lo" {
		t.Errorf("two applications ran %q", *calls)
	}
}

func TestApplyWritesTheConfigurationLast(t *testing.T) {
	h, _ := fakeHost(t)
	h.NFT = func(context.Context, string) error { return errors.New("no") }
	if err := h.Apply(t.Context(), testConfig()); err == nil {
		t.Fatal("a failed ruleset went unnoticed")
	}
	if _, err := os.Stat(filepath.Join(h.ConfDir, confName)); err == nil {
		t.Error("pods would start without their rules")
	}
}

// The file is what containerd's reference plugins are told.
func TestConflist(t *testing.T) {
	raw, err := Conflist(testConfig())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "cniVersion": "0.4.0",
  "name": "kairos",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "forceAddress": true,
      "hairpinMode": true,
      "mtu": 1420,
      "ipam": {
        "type": "host-local",
        "ranges": [
          [
            {
              "subnet": "10.42.3.0/24"
            }
          ]
        ],
        "routes": [
          {
            "dst": "0.0.0.0/0"
          }
        ]
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`
	if string(raw) != want {
		t.Errorf("got\n%s", raw)
	}
}

func TestRuleset(t *testing.T) {
	r := Ruleset(testConfig())
	for _, want := range []string{
		`oifname != "cni0" ip saddr 10.42.3.0/24 ip daddr != { 10.42.0.0/16, 10.43.0.0/16, 10.77.0.0/16, 169.254.53.53 } masquerade`,
		`oifname "kairos0" ip saddr != { 10.77.1.2, 10.42.3.0/24 } snat to 10.77.1.2`,
	} {
		if !strings.Contains(r, want) {
			t.Errorf("missing %s in\n%s", want, r)
		}
	}
	if strings.Contains(r, "$") || strings.Contains(r, "fd00") {
		t.Errorf("not filled in:\n%s", r)
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*Config)
	}{
		{"no range", func(c *Config) { c.PodCIDR = netip.Prefix{} }},
		{"range elsewhere", func(c *Config) { c.PodCIDR = netip.MustParsePrefix("10.41.3.0/24") }},
		{"range too wide", func(c *Config) { c.PodCIDR = netip.MustParsePrefix("10.0.0.0/8") }},
		{"no overlay", func(c *Config) { c.Overlay = nil }},
		{"no MTU", func(c *Config) { c.MTU = 0 }},
		{"a rule as interface", func(c *Config) { c.Interface = `x" accept` }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, _ := fakeHost(t)
			c := testConfig()
			tc.edit(&c)
			if err := h.Apply(t.Context(), c); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// containerd starts pods anew whenever the file changes, so it is written only then.
func TestConfigurationIsWrittenOnce(t *testing.T) {
	h, _ := fakeHost(t)
	c, path := testConfig(), filepath.Join(h.ConfDir, confName)
	if err := h.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		mtu  int
		same bool
	}{{"again", 1420, true}, {"another MTU", 1300, false}} {
		c.MTU = tc.mtu
		if err := h.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(path)
		if err != nil || os.SameFile(before, after) != tc.same {
			t.Errorf("%s: same file %v, want %v (%v)", tc.name, os.SameFile(before, after), tc.same, err)
		}
	}
}

// What a machine may refuse, and what becomes of it.
func TestMachineThatRefuses(t *testing.T) {
	refused := errors.New("refused")
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, h *Host)
		want string // "" where pods can do without
	}{
		{"nft", func(_ *testing.T, h *Host) { h.NFT = func(context.Context, string) error { return refused } }, "load the nftables rules: refused"},
		{"iptables", func(_ *testing.T, h *Host) { h.Run = func(context.Context, string, ...string) error { return refused } },
			"let pods through the host's firewall: refused"},
		{"no forwarding to be set", func(t *testing.T, h *Host) { remove(t, h.ProcSys, "net/ipv4/ip_forward") },
			"set net.ipv4.ip_forward to 1 (it belongs into /etc/sysctl.d)"},
		{"no bridge filter, and none to load", func(t *testing.T, h *Host) { remove(t, h.ProcSys, "net/bridge") }, ""},
		{"no directory for CNI", func(t *testing.T, h *Host) { h.ConfDir = filepath.Join(h.ProcSys, "net/ipv4/ip_forward") }, "make the CNI directory"},
		{"no room for the file", func(t *testing.T, h *Host) {
			if err := os.MkdirAll(filepath.Join(h.ConfDir, confName), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "write the CNI configuration"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, _ := fakeHost(t)
			tc.do(t, &h)
			err := h.Apply(t.Context(), testConfig())
			if tc.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func remove(t *testing.T, elem ...string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(elem...)); err != nil {
		t.Fatal(err)
	}
}

// The module for bridge filters is loaded where its key is missing, and the key set then.
func TestBridgeFilterIsLoaded(t *testing.T) {
	h, _ := fakeHost(t)
	key := filepath.Join(h.ProcSys, "net/bridge/bridge-nf-call-iptables")
	remove(t, h.ProcSys, "net/bridge")
	h.Run = func(_ context.Context, name string, a ...string) error {
		if name != "modprobe" {
			return nil
		}
		if strings.Join(a, " ") != "br_netfilter" {
			t.Errorf("loads %q", a)
		}
		return errors.Join(os.MkdirAll(filepath.Dir(key), 0o755), os.WriteFile(key, []byte("0\n"), 0o600))
	}
	if err := h.Apply(t.Context(), testConfig()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(key); err != nil || string(b) != "1" {
		t.Errorf("%q, %v", b, err)
	}
}

// A rule that is there is not added a second time.
func TestFirewallIsOpenedOnce(t *testing.T) {
	h, _ := fakeHost(t)
	rules := map[string]bool{}
	h.Run = func(_ context.Context, name string, a ...string) error {
		if name != "iptables" {
			return nil
		}
		rule := strings.Join(a[2:], " ")
		switch {
		case a[1] == "-A" && rules[rule]:
			t.Errorf("added twice: %s", rule)
		case a[1] == "-A":
			rules[rule] = true
		case !rules[rule]:
			return errors.New("no such rule")
		}
		return nil
	}
	for range 3 {
		if err := h.Apply(t.Context(), testConfig()); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []string{"-s", "-d"} {
		if !rules["FORWARD "+m+" 10.42.0.0/16 -m comment --comment kairos pods -j ACCEPT"] {
			t.Errorf("%s is missing in %v", m, rules)
		}
	}
}

// The kernel takes the rules, the second time too, and keeps one table of them.
func TestRulesetInTheKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT RUN: needs root for a network namespace")
	}
	script := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(script, []byte(Ruleset(testConfig())), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", "nft -f "+script+"; nft -f "+script+"; nft list ruleset")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for want, n := range map[string]int{"table ip kairos": 1, "type filter hook forward": 1, "type filter hook input": 1, "masquerade": 1, "snat to 10.77.1.2": 1} {
		if got := strings.Count(string(out), want); got != n {
			t.Errorf("%q is there %d times in\n%s", want, got, out)
		}
	}
}

// Pods whose addresses are of another range than the node's are found by what the
// plugin writes down (fault T2); its other files are none.
func TestStrays(t *testing.T) {
	dir := t.TempDir()
	h := Host{Reservations: dir}
	for name, content := range map[string]string{
		"10.42.3.2": "here\r\neth0", "10.42.1.9": "stray\r\neth0", "10.42.1.10": "old-plugin", "10.42.1.11": "",
		"last_reserved_ip.0": "10.42.1.9", "lock": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := h.Strays(netip.MustParsePrefix("10.42.3.0/24"))
	slices.Sort(got)
	if want := []string{"old-plugin", "stray"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	h.Reservations = filepath.Join(dir, "none")
	if got, err := h.Strays(netip.MustParsePrefix("10.42.3.0/24")); err != nil || got != nil {
		t.Errorf("of no directory: %q, %v", got, err)
	}
}

// The error of a program is in its own words.
func TestOutput(t *testing.T) {
	err := Host{}.run(t.Context(), "sh", "-c", "echo no such table >&2; exit 3")
	if err == nil || err.Error() != "sh: exit status 3: no such table" {
		t.Errorf("got %v", err)
	}
	if err := (Host{}).run(t.Context(), "true"); err != nil {
		t.Errorf("got %v", err)
	}
}
