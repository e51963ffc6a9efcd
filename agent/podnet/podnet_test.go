package podnet

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func testConfig() Config {
	return Config{
		PodCIDR: netip.MustParsePrefix("10.42.3.0/24"), Pods: netip.MustParsePrefix("10.42.0.0/16"),
		Services: netip.MustParsePrefix("10.43.0.0/16"),
		Overlay:  []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd00::/64")},
		Address:  netip.MustParseAddr("10.77.1.2"), Interface: "kairos0", MTU: 1420,
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
	if p, err := h.Applied(); err != nil || p.IsValid() {
		t.Fatalf("before: %v, %v", p, err)
	}
	for range 2 {
		if err := h.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := h.Applied(); err != nil || p != c.PodCIDR {
		t.Errorf("after: %v, %v", p, err)
	}
	if b, err := os.ReadFile(filepath.Join(h.ProcSys, "net/ipv4/ip_forward")); err != nil || string(b) != "1" {
		t.Errorf("ip_forward is %q, %v", b, err)
	}
	if n := len(*calls); n != 10 {
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

func TestConflist(t *testing.T) {
	raw, err := Conflist(testConfig())
	if err != nil {
		t.Fatal(err)
	}
	var l conflist
	if err := json.Unmarshal(raw, &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Plugins) != 2 || l.Plugins[0].MTU != 1420 || l.Plugins[0].IPAM.Ranges[0][0].Subnet != "10.42.3.0/24" {
		t.Errorf("got %s", raw)
	}
}

func TestRuleset(t *testing.T) {
	r := Ruleset(testConfig())
	for _, want := range []string{
		`oifname != "cni0" ip saddr 10.42.3.0/24 ip daddr != { 10.42.0.0/16, 10.43.0.0/16, 10.77.0.0/16 } masquerade`,
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

func TestAppliedIgnoresForeignFiles(t *testing.T) {
	h, _ := fakeHost(t)
	if err := os.MkdirAll(h.ConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{}", `{"plugins":[{"type":"bridge","ipam":{"ranges":[]}}]}`, `{"plugins":[{"ipam":{"ranges":[[{"subnet":"x"}]]}}]}`} {
		if err := os.WriteFile(filepath.Join(h.ConfDir, confName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := h.Applied(); err != nil || p.IsValid() {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}
