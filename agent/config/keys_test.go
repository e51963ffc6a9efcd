package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// refusal is a value and why it is not taken.
type refusal struct{ value, reason string }

// keyCase is what a key takes and refuses, at the edges of its limits.
type keyCase struct {
	good []string
	bad  []refusal
}

func list(n int, format string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(format, i+1)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// A wrong type is told in the same words for all keys of one type.
var (
	noText    = []refusal{{"1", "want a text, got a number: put it in quotes"}, {"true", "want a text, got true or false: put it in quotes"}, {"[a]", "want a text, got a list"}, {"{a: b}", "want a text, got a mapping"}, {"~", "has no value: want a text"}}
	noBool    = []refusal{{"1", "want true or false, got a number"}, {"'true'", "want true or false, got a text; did you mean true?"}, {"off", "want true or false, got a text; did you mean false?"}, {"[true]", "want true or false, got a list"}, {"~", "has no value: want true or false"}}
	noInt     = []refusal{{"'1'", "want a whole number, got a text"}, {"1.5", "want a whole number, got a number"}, {"true", "want a whole number, got true or false"}, {"[1]", "want a whole number, got a list"}, {"~", "has no value: want a whole number"}}
	noList    = []refusal{{"{a: b}", "want a list, got a mapping"}, {"1", "want a list, got a number"}, {"[1]", "want a text, got a number: put it in quotes"}, {"[[a]]", "want a text, got a list"}, {"~", "has no value: want a list"}}
	noMapping = []refusal{{"[a]", "want a mapping, got a list"}, {"x", "want a mapping, got a text"}, {"~", "has no value: want a mapping"}}
)

// keyCases has every key of the block: a new key fails the test until it is here.
func keyCases(tok string) map[string]keyCase {
	return map[string]keyCase{
		"network_token": {[]string{tok, "'" + tok + "'"}, append([]refusal{{`""`, "empty"}}, noText...)},
		"network_id": {[]string{"home", "a", "'0'", "a-b", strings.Repeat("x", 63)}, append([]refusal{
			{strings.Repeat("x", 64), "is not a DNS label"}, {"-a", "did you mean a?"}, {"a-", "did you mean a?"}, {"a b", "did you mean a-b?"}, {"ä", "is not a DNS label"}}, noText...)},
		"role": {[]string{`""`, "master", "worker"}, append([]refusal{{"Master", `"Master" is not one of "", master, worker; did you mean master?`},
			{"agent", "did you mean worker?"}, {"auto", `did you mean ""?`}, {"control-plane", "did you mean master?"}}, noText...)},
		"dns": {[]string{"true", "false", "True"}, noBool},
		"log_level": {[]string{"debug", "info", "warn", "error"}, append([]refusal{{"trace", "did you mean debug?"}, {"fatal", "did you mean error?"},
			{`""`, "is not one of debug, info, warn, error"}, {"INFO", "did you mean info?"}}, noText...)},
		"overlay.interface": {[]string{"kairos0", "a", "a.b-c_d", strings.Repeat("x", 15)}, append([]refusal{
			{strings.Repeat("x", 16), "has 16 characters, the kernel takes 15"}, {`""`, "is empty"}, {"all", "cannot be used"}, {"..", "cannot be used"}, {"'a b'", "may hold only"}, {"a:0", "may hold only"}}, noText...)},
		"overlay.cidr": {[]string{"10.0.0.0/11", "10.99.1.0/24", "172.16.0.0/12", "192.168.7.0/24", "100.64.0.0/10"}, append([]refusal{
			{"10.0.0.0/7", "the range must be /8 to /24"}, {"10.99.1.0/25", "the range must be /8 to /24"}, {"10.43.0.0/16", "overlaps the service range"}, {"10.0.0.0/8", "overlaps the"},
			{"10.42.8.0/24", "overlaps the pod range"}, {"100.128.0.0/10", "is public"}, {"home", "is not a range such as"}}, noText...)},
		"overlay.listen": {[]string{`["0.0.0.0:4171"]`, `["[::]:4171", "192.0.2.1:1"]`, `["127.0.0.1:0", "127.0.0.1:0"]`}, append([]refusal{
			{`["fe80::1%eth0"]`, "is not address:port"}, {`["[fe80::1%eth0]:4171"]`, "has a zone"}, {`["224.0.0.1:4171"]`, "is a multicast address"}, {`["host:4171"]`, "is not address:port"},
			{`["2001:db8::1"]`, "did you mean [2001:db8::1]:4171?"}, {`["0.0.0.0:70000"]`, "is not address:port"}, {list(17, "'10.1.1.1:%d'"), "17 entries, at most 16 are taken"}}, noList...)},
		"overlay.peers": {[]string{"[]", "[a.example:1]", "['192.0.2.1:65535', '[2001:db8::1]:9']", "[box_1:4171]", "[/ip4/192.0.2.7/tcp/4171]", "[/ip6/2001:db8::1/udp/4171/quic-v1]",
			"[/dns/a.example/tcp/1/p2p/12D3KooWxyz]", list(256, "a%d.example:1")}, append([]refusal{
			{list(257, "a%d.example:1"), "257 entries, at most 256 are taken"}, {"['a:65536']", "the port must be from 1 to 65535"}, {"['a:http']", "the port must be"}, {"['0.0.0.0:1']", "is not the address of a machine"},
			{"['[ff02::1]:1']", "is not the address of a machine"}, {"['a b:1']", "is not host:port"}, {"['']", "is not host:port"}, {"['10.0.0.256:1']", "is not host:port"}, {"[/ip4/2001:db8::1/tcp/1]", "is not a multiaddress"},
			{"[/ip6/192.0.2.1/tcp/1]", "is not a multiaddress"}, {"[/ip4/192.0.2.1]", "is not a multiaddress"}, {"[/dns4/a_b c/tcp/1]", "is not a multiaddress"}, {"[/ip4/192.0.2.1/sctp/1]", "is not a multiaddress"},
			{"[/ip4/192.0.2.1/tcp/0]", "is not a multiaddress"}, {"[/ip4/192.0.2.1/tcp/1/ws]", "is not a multiaddress"}, {"[/ip4/192.0.2.1/udp/1/quic]", "did you mean /ip4/192.0.2.1/udp/1/quic-v1?"}, {"[/onion/x/tcp/1]", "is not a multiaddress"}}, noList...)},
		"overlay.mdns":    {[]string{"true", "false"}, noBool},
		"overlay.dht":     {[]string{"false"}, append([]refusal{{"true", "not in this version"}}, noBool...)},
		"overlay.relay":   {[]string{"false"}, append([]refusal{{"true", "not in this version"}}, noBool...)},
		"overlay.mtu":     {[]string{"0", "1280", "9000"}, append([]refusal{{"1279", "is not from 1280 to 9000"}, {"9001", "is not from 1280 to 9000"}, {"-1", "is not from 1280 to 9000"}}, noInt...)},
		"cluster.enabled": {[]string{"true", "false"}, noBool},
		"cluster.uid": {[]string{`""`, strings.Repeat("0a", 16), "'" + strings.Repeat("12", 16) + "'"}, append([]refusal{{"abc", "is not the uid of a cluster"},
			{strings.Repeat("0A", 16), "did you mean " + strings.Repeat("0a", 16) + "?"}, {strings.Repeat("xy", 16), "is not the uid of a cluster"}}, noText...)},
		"cluster.servers": {[]string{"1"}, append([]refusal{{"2", "not in this version, only 1"}, {"0", "set cluster.enabled to false"}, {"-1", "want 1"}}, noInt...)},
		"k3s.image": {[]string{`""`, "rancher/k3s:v1", "r.example:5000/k3s@sha256:" + strings.Repeat("ab", 32), "oci:/usr/share/k3s", "oci:/x:v1"}, append([]refusal{
			{"docker://rancher/k3s", "an image reference has no scheme; did you mean rancher/k3s?"}, {"oci:k3s", "did you mean oci:/k3s?"}, {"'a b'", "has white space in it"}}, noText...)},
		"os.image": {[]string{`""`, "r.example/os:stable", "oci:/mnt/os", "r.example/os@sha256:" + strings.Repeat("ab", 32)}, append([]refusal{
			{"https://r.example/os", "an image reference has no scheme; did you mean r.example/os?"}, {"oci:os", "did you mean oci:/os?"}, {"'a b'", "has white space in it"}}, noText...)},
		"os.verify_key": {pemCases.good, append(pemCases.bad, noText...)},
		"os.health_timeout": {[]string{"10m", "1m", "6h", "1h30m", "90s"}, append([]refusal{{"59s", "59s is not from 1m to 6h"}, {"6h0m1s", "is not from 1m to 6h"}, {"-10m", "is not from"},
			{`""`, "is not a duration such as"}, {"10 minutes", "is not a duration such as"}, {"'600'", "is not a duration such as"}}, noText...)},
		"k3s.args": {[]string{"[]", "['--disable=traefik']", "['--disable', 'traefik']", "['--kubelet-arg=max-pods=50']", "['-v', '4']"}, append([]refusal{
			{"['']", "is empty"}, {"['--']", "is not a flag"}, {"['-']", "is not a flag"}, {"[agent]", "is the role"}, {"[' --debug']", "has white space around it"}, {`["a\0b"]`, "holds a zero byte"},
			{"['--kubelet-arg=address=1.2.3.4']", "kubelet-arg address cannot be set"}, {"['--kubelet-arg', 'config=/x']", "kubelet-arg config cannot be set"}}, noList...)},
		"k3s.env": {[]string{"{}", "{A: b}", "{HTTP_PROXY: 'http://u:p@h'}"}, append([]refusal{
			{"{'A=B': c}", "is not the name of an environment variable"}, {"{'': c}", "is not the name of"}, {"{'A B': c}", "is not the name of"}, {"{K3S_URL: x}", "cannot be set"},
			{"{CONTAINERD_ADDRESS: x}", "cannot be set"}, {`{A: "x\0"}`, "holds a zero byte"}, {"{A: [b]}", "want a text, got a list"}, {"{A: ~}", "want a text, got nothing"}}, noMapping...)},
	}
}

func TestEveryKey(t *testing.T) {
	tok := newToken(t).Reveal()
	cases := keyCases(tok)
	if got, want := slices.Sorted(maps.Keys(cases)), leafKeys(); !slices.Equal(got, want) {
		t.Fatalf("the table has\n%q, the block\n%q", got, want)
	}
	for key, c := range cases {
		t.Run(key, func(t *testing.T) {
			for _, v := range c.good {
				if reason := decodeReason(t, tok, root+"."+key, v); reason != "" {
					t.Errorf("%s: refused: %s", v, reason)
				}
			}
			for _, b := range c.bad {
				reason := decodeReason(t, tok, root+"."+key, b.value)
				if !strings.Contains(reason, b.reason) || !strings.Contains(reason, ": "+root+"."+key) {
					t.Errorf("%s: got %q, want %q", b.value, reason, b.reason)
				}
			}
		})
	}
}

// leafKeys are the keys that hold values, without the root, sorted.
func leafKeys() []string {
	var out []string
	all := keysOf(root, reflect.TypeFor[Config]())
	for _, k := range all {
		if !slices.ContainsFunc(all, func(other string) bool { return strings.HasPrefix(other, k+".") }) {
			out = append(out, strings.TrimPrefix(k, root+"."))
		}
	}
	slices.Sort(out)
	return out
}

// Every flag that Kairos owns is refused in each way of writing it, with its
// reason, and its value is never told.
func TestOwnedFlags(t *testing.T) {
	for name, why := range ownedFlags {
		for _, arg := range []string{"--" + name, "-" + name, "--" + name + "=s3cret", "--" + name + " s3cret"} {
			reason, _ := checkArg(arg)
			if reason != "--"+name+" cannot be set: "+why {
				t.Errorf("%s: %q", arg, reason)
			}
		}
	}
	for name, why := range ownedKubelet {
		want := "kubelet-arg " + name + " cannot be set: " + why
		if reason, _ := checkArg("--kubelet-arg=" + name + "=s3cret"); reason != want {
			t.Errorf("%s: %q", name, reason)
		}
		if reason, _ := checkArgs([]string{"--debug", "--kubelet-arg", "--" + name + "=s3cret"}); reason != want {
			t.Errorf("%s as an item of its own: %q", name, reason)
		}
	}
	for _, arg := range []string{"--node-label=a=b", "--node-ipx", "--tokens", "--kubelet-arg=node-ip"} {
		if reason, _ := checkArg(arg); reason != "" {
			t.Errorf("%s: %q", arg, reason)
		}
	}
}

func TestIsHost(t *testing.T) {
	for name, want := range map[string]bool{"a": true, "a.example": true, "a.example.": true, "under_score": true, "A-B": true, "1.example": true,
		"": false, ".": false, "a..b": false, "-a": false, "a-": false, "1.2.3.4": false, "1.2.3": false, strings.Repeat("a", 64): false,
		strings.Repeat("abcdefg.", 32): false, "a b": false} {
		if got := isHost(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
