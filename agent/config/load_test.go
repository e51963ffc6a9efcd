package config

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/token"
)

func newToken(t testing.TB) token.Token {
	t.Helper()
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// block is a cloud-config whose kairos block has a good token on line 3 and
// the given lines from line 4.
func block(tok token.Token, lines string) string {
	out := "#cloud-config\nkairos:\n  network_token: " + tok.Reveal() + "\n"
	for _, l := range strings.Split(strings.Trim(lines, "\n"), "\n") {
		if l != "" {
			out += "  " + l + "\n"
		}
	}
	return out
}

func TestDefaults(t *testing.T) {
	tok := newToken(t)
	l, err := Load(write(t, t.TempDir(), "a.yaml", block(tok, "")))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.NetworkToken = tok
	if l.Config.NetworkToken.Reveal() != tok.Reveal() {
		t.Error("another token")
	}
	l.Config.NetworkToken = tok
	if !reflect.DeepEqual(l.Config, want) {
		t.Errorf("got %+v", l.Config)
	}
}

func TestAllKeys(t *testing.T) {
	l, err := Load(write(t, t.TempDir(), "a.yaml", block(newToken(t), `
network_id: home
role: worker
dns: false
log_level: debug
overlay:
  interface: mesh0
  cidr: 10.99.0.0/16
  listen: ["192.0.2.1:4171", "[2001:db8::1]:4172"]
  peers: [a.example:4171, "[2001:db8::2]:1", /dns4/b.example/udp/4171/quic-v1]
  mdns: false
  dht: false
  relay: false
  mtu: 1400
cluster: {enabled: false, servers: 1}
k3s:
  image: oci:/var/lib/k3s:v1
  args: [--disable, traefik, --kubelet-arg=max-pods=50]
  env: {HTTP_PROXY: "http://u:p@proxy"}
os: {image: r.example/os:stable, health_timeout: 20m}
`)))
	if err != nil {
		t.Fatal(err)
	}
	got := l.Config
	got.NetworkToken = token.Token{}
	want := Config{NetworkID: "home", Role: RoleWorker, LogLevel: LogDebug,
		Overlay: Overlay{Interface: "mesh0", CIDR: netip.MustParsePrefix("10.99.0.0/16"),
			Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4171"), netip.MustParseAddrPort("[2001:db8::1]:4172")},
			Peers:  []string{"a.example:4171", "[2001:db8::2]:1", "/dns4/b.example/udp/4171/quic-v1"}, MTU: 1400},
		Cluster: Cluster{Servers: 1},
		K3s: K3s{Image: "oci:/var/lib/k3s:v1", Args: []string{"--disable", "traefik", "--kubelet-arg=max-pods=50"},
			Env: map[string]Secret{"HTTP_PROXY": "http://u:p@proxy"}},
		OS: OS{Image: "r.example/os:stable", HealthTimeout: 20 * time.Minute}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for key, line := range map[string]int{"kairos.role": 5, "kairos.overlay.mtu": 16, "kairos.k3s.env.HTTP_PROXY": 21} {
		if o := l.Origins[key]; o.Line != line {
			t.Errorf("%s stands on line %d, want %d", key, o.Line, line)
		}
	}
}

// Every bad value is told with file, line, key, reason and, where there is one, what was meant.
func TestProblems(t *testing.T) {
	tests := []struct {
		name, lines string
		want        string // after "FILE:"; the block's first own line is 4
	}{
		{"unknown key", "network_idd: x", "4: kairos.network_idd: unknown key; did you mean network_id?"},
		{"unknown key, old spelling", "loglevel: info", "4: kairos.loglevel: unknown key; did you mean log_level?"},
		{"unknown key, dashes", "log-level: info", "4: kairos.log-level: unknown key; did you mean log_level?"},
		{"unknown key of another mapping", "peers: []", "4: kairos.peers: unknown key; did you mean kairos.overlay.peers?"},
		{"unknown key, nothing near", "colour: blue", "4: kairos.colour: unknown key"},
		{"unknown nested key", "overlay: {mtuu: 1400}", "4: kairos.overlay.mtuu: unknown key; did you mean mtu?"},
		{"duplicate key", "dns: true\ndns: false", "5: kairos.dns: duplicate key, first on line 4"},
		{"duplicate nested key", "overlay:\n  mtu: 1400\n  mtu: 1300", "6: kairos.overlay.mtu: duplicate key, first on line 5"},
		{"duplicate environment", "k3s: {env: {A: x, A: y}}", "4: kairos.k3s.env.A: duplicate key, first on line 4"},
		{"key of no word", "[a]: 1", "4: kairos: a key must be a plain word, got a list"},
		{"merge key", "<<: {dns: true}", "4: kairos: merge keys (<<) are not supported: write the keys out"},
		{"bad role", "role: mastr", `4: kairos.role: "mastr" is not one of "", master, worker; did you mean master?`},
		{"role by another name", "role: server", `4: kairos.role: "server" is not one of "", master, worker; did you mean master?`},
		{"role of no text", "role: 1", "4: kairos.role: want a text, got a number: put it in quotes"},
		{"no value", "role:", "4: kairos.role: has no value: want a text; leave the key out for the default"},
		{"bad level", "log_level: verbose", `4: kairos.log_level: "verbose" is not one of debug, info, warn, error`},
		{"level by another name", "log_level: warning", `4: kairos.log_level: "warning" is not one of debug, info, warn, error; did you mean warn?`},
		{"yes", "dns: yes", "4: kairos.dns: want true or false, got a text; did you mean true?"},
		{"quoted bool", `dns: "false"`, "4: kairos.dns: want true or false, got a text; did you mean false?"},
		{"network_id with capitals", "network_id: My_Home", `4: kairos.network_id: "My_Home" is not a DNS label: 1 to 63 of a-z, 0-9 and -, not at the ends; did you mean my-home?`},
		{"network_id empty", `network_id: ""`, `4: kairos.network_id: "" is not a DNS label: 1 to 63 of a-z, 0-9 and -, not at the ends`},
		{"network_id with dots", "network_id: a.b", `4: kairos.network_id: "a.b" is not a DNS label: 1 to 63 of a-z, 0-9 and -, not at the ends; did you mean a-b?`},
		{"mapping expected", "overlay: true", "4: kairos.overlay: want a mapping, got true or false"},
		{"interface too long", "overlay: {interface: averyverylongname}", `4: kairos.overlay.interface: "averyverylongname" has 17 characters, the kernel takes 15; did you mean averyverylongna?`},
		{"interface with a slash", "overlay: {interface: a/b}", `4: kairos.overlay.interface: "a/b" may hold only letters, digits, -, _ and .`},
		{"interface lo", "overlay: {interface: lo}", `4: kairos.overlay.interface: "lo" cannot be used as an interface name`},
		{"cidr", "overlay: {cidr: 10.99.0.0}", `4: kairos.overlay.cidr: "10.99.0.0" is not a range such as 10.99.0.0/16`},
		{"cidr with host bits", "overlay: {cidr: 10.99.1.0/16}", "4: kairos.overlay.cidr: 10.99.1.0/16 has bits set behind the mask; did you mean 10.99.0.0/16?"},
		{"cidr too small", "overlay: {cidr: 10.99.1.0/28}", "4: kairos.overlay.cidr: 10.99.1.0/28: the range must be /8 to /24"},
		{"cidr v6", "overlay: {cidr: 'fd00::/64'}", "4: kairos.overlay.cidr: fd00::/64 is not IPv4: the IPv6 range always follows from the token"},
		{"cidr public", "overlay: {cidr: 8.8.0.0/16}", "4: kairos.overlay.cidr: 8.8.0.0/16 is public: take a private range (10/8, 172.16/12, 192.168/16, 100.64/10)"},
		{"cidr of pods", "overlay: {cidr: 10.42.0.0/16}", "4: kairos.overlay.cidr: 10.42.0.0/16 overlaps the pod range 10.42.0.0/16 of the cluster"},
		{"listen without port", "overlay: {listen: [192.0.2.1]}", `4: kairos.overlay.listen[0]: "192.0.2.1" is not address:port, such as 0.0.0.0:4171; did you mean 192.0.2.1:4171?`},
		{"listen port only", `overlay: {listen: [":9"]}`, `4: kairos.overlay.listen[0]: ":9" is not address:port, such as 0.0.0.0:4171; did you mean 0.0.0.0:9?`},
		{"listen twice", `overlay: {listen: ["1.2.3.4:5", "1.2.3.4:5"]}`, "4: kairos.overlay.listen: 1.2.3.4:5 is there twice"},
		{"listen empty", "overlay: {listen: []}", "4: kairos.overlay.listen: is empty: leave the key out for the default"},
		{"peers of no list", "overlay: {peers: 'a:1'}", `4: kairos.overlay.peers: want a list, got a text; did you mean ["a:1"]?`},
		{"peer without port", "overlay:\n  peers:\n    - a.example", `6: kairos.overlay.peers[0]: "a.example" is not host:port, such as 192.0.2.7:4171, nor a multiaddress; did you mean a.example:4171?`},
		{"peer v6 without brackets", "overlay: {peers: ['2001:db8::1']}", `4: kairos.overlay.peers[0]: "2001:db8::1" is not host:port, such as 192.0.2.7:4171, nor a multiaddress; did you mean [2001:db8::1]:4171?`},
		{"peer mistyped address", "overlay: {peers: ['300.1.1.1:4171']}", `4: kairos.overlay.peers[0]: "300.1.1.1:4171" is not host:port, such as 192.0.2.7:4171, nor a multiaddress`},
		{"peer url", "overlay: {peers: ['udp://a:1']}", `4: kairos.overlay.peers[0]: "udp://a:1" is not host:port, such as 192.0.2.7:4171, nor a multiaddress; did you mean a:1?`},
		{"peer port", "overlay: {peers: ['a:0']}", `4: kairos.overlay.peers[0]: "a:0": the port must be from 1 to 65535`},
		{"multiaddress without quic", "overlay: {peers: [/ip4/192.0.2.7/udp/4171]}", `4: kairos.overlay.peers[0]: "/ip4/192.0.2.7/udp/4171": a udp address must go on with /quic-v1; did you mean /ip4/192.0.2.7/udp/4171/quic-v1?`},
		{"dht", "overlay: {dht: true}", "4: kairos.overlay.dht: not in this version: remove it or set it to false"},
		{"relay", "overlay: {relay: true}", "4: kairos.overlay.relay: not in this version: remove it or set it to false"},
		{"mtu", "overlay: {mtu: 576}", "4: kairos.overlay.mtu: 576 is not from 1280 to 9000"},
		{"mtu as text", "overlay: {mtu: '1400'}", "4: kairos.overlay.mtu: want a whole number, got a text"},
		{"mtu with a point", "overlay: {mtu: 1400.5}", "4: kairos.overlay.mtu: want a whole number, got a number"},
		{"mtu huge", "overlay: {mtu: 99999999999999999999}", "4: kairos.overlay.mtu: want a whole number, got a number"},
		{"servers", "cluster: {servers: 3}", "4: kairos.cluster.servers: 3 servers: not in this version, only 1"},
		{"servers none", "cluster: {servers: 0}", "4: kairos.cluster.servers: 0: want 1; for no Kubernetes at all set cluster.enabled to false"},
		{"image url", "k3s: {image: 'https://a/b:1'}", `4: kairos.k3s.image: "https://a/b:1": an image reference has no scheme; did you mean a/b:1?`},
		{"image layout", "k3s: {image: 'oci:var/x'}", `4: kairos.k3s.image: "oci:var/x": the path of a layout must be absolute; did you mean oci:/var/x?`},
		{"owned flag", "k3s: {args: [--node-ip=1.2.3.4]}", "4: kairos.k3s.args[0]: --node-ip cannot be set: " + whyAddress},
		{"owned flag, one dash", "k3s: {args: [-token, s3cret]}", "4: kairos.k3s.args[0]: --token cannot be set: " + whyToken},
		{"owned flag with its value in one", "k3s: {args: ['--token s3cret']}", "4: kairos.k3s.args[0]: --token cannot be set: " + whyToken},
		{"owned flag on its line", "k3s:\n  args:\n    - --disable=traefik\n    - --flannel-backend=vxlan", "7: kairos.k3s.args[1]: --flannel-backend cannot be set: " + whyNetwork},
		{"owned datastore", "k3s: {args: [--datastore-endpoint=mysql://u:s3cret@h]}", "4: kairos.k3s.args[0]: --datastore-endpoint cannot be set: " + whyDatastore},
		{"flag that k3s ignores beside a containerd of the machine", "k3s: {args: [--private-registry=/x]}", "4: kairos.k3s.args[0]: --private-registry cannot be set: " + whyRegistry},
		{"flag with which k3s would not start", "k3s: {args: [--embedded-registry]}", "4: kairos.k3s.args[0]: --embedded-registry cannot be set: " + whyImages},
		{"another sandbox image", "k3s: {args: ['--pause-image', x]}", "4: kairos.k3s.args[0]: --pause-image cannot be set: " + whyPause},
		{"snapshotter", "k3s: {args: [--snapshotter=native]}", "4: kairos.k3s.args[0]: --snapshotter cannot be set: " + whyRuntime},
		{"cgroup driver that containerd does not have", "k3s: {args: [--kubelet-arg=cgroup-driver=systemd]}", "4: kairos.k3s.args[0]: kubelet-arg cgroup-driver cannot be set: " + whyRuntime},
		{"role among the flags", "k3s: {args: [server]}", "4: kairos.k3s.args[0]: is the role, which the nodes agree on: list flags only"},
		{"owned kubelet flag", "k3s: {args: [--kubelet-arg=node-ip=1.2.3.4]}", "4: kairos.k3s.args[0]: kubelet-arg node-ip cannot be set: " + whyAddress},
		{"owned kubelet flag, two items", "k3s: {args: [--kubelet-arg, hostname-override=x]}", "4: kairos.k3s.args: kubelet-arg hostname-override cannot be set: " + whyName},
		{"flag and value in one item", "k3s: {args: ['--disable traefik']}", "4: kairos.k3s.args[0]: --disable and its value are one item with a space between; did you mean --disable=VALUE?"},
		{"flag in the environment", "k3s: {env: {K3S_TOKEN: s3cret}}", "4: kairos.k3s.env.K3S_TOKEN: cannot be set: k3s would take it for a flag that Kairos sets; use k3s.args for others"},
		{"number in the environment", "k3s: {env: {A: 1}}", "4: kairos.k3s.env.A: want a text, got a number: put it in quotes"},
	}
	tok := newToken(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, t.TempDir(), "a.yaml", block(tok, tt.lines))
			_, err := Check(file)
			if err == nil {
				t.Fatal("taken")
			}
			if want := file + ":" + tt.want; err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
			if ps := (Problems)(nil); !errors.As(err, &ps) || len(ps) != 1 {
				t.Errorf("%d problems in %T", len(ps), err)
			}
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), tok.Reveal()) {
				t.Errorf("a secret is told: %s", err)
			}
		})
	}
}

func TestBadTokens(t *testing.T) {
	good := newToken(t).Reveal()
	typo := []byte(good)
	typo[20] = map[bool]byte{true: 'B', false: 'A'}[typo[20] == 'A']
	tests := []struct {
		name, value string
		want        error
	}{
		{"empty", `""`, token.ErrEmpty},
		{"cut", good[:30], token.ErrTruncated},
		{"mistyped", string(typo), token.ErrTypo},
		{"something else", "hunter2hunter2", token.ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, t.TempDir(), "a.yaml", "#cloud-config\nkairos:\n  network_token: "+tt.value+"\n")
			_, err := Check(file)
			if err == nil || !strings.Contains(err.Error(), tt.want.Error()) || !strings.HasPrefix(err.Error(), file+":3: kairos.network_token: ") {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.name != "empty" && strings.Contains(fmt.Sprint(err), tt.value) {
				t.Errorf("the token is told: %v", err)
			}
		})
	}
}

func TestFilesThatAreNone(t *testing.T) {
	tok := newToken(t)
	tests := []struct {
		name, content string
		want          string // %s is the file
		noBlock       bool
	}{
		{"no header", "kairos:\n  role: worker\n", "%s:1: is not a cloud-config: the first line must be #cloud-config", false},
		{"header with a space", "# cloud-config\nkairos: {}\n", "%s:1: the first line must be exactly #cloud-config", false},
		{"another file", "hello: world\n", "no kairos block: %s:1: is not a cloud-config: the first line must be #cloud-config", true},
		{"not even YAML", "\x7fELF\x01", "no kairos block: %s:1: is not a cloud-config: the first line must be #cloud-config", true},
		{"empty", "", "no kairos block: %s:1: is not a cloud-config: the first line must be #cloud-config", true},
		{"no block", "#cloud-config\nusers: []\n", "no kairos block in %s", true},
		{"mistyped block", "#cloud-config\nkairo: {}\n", "no kairos block: %s:2: kairo: unknown key; did you mean kairos?", true},
		{"only the header", "#cloud-config\n", "no kairos block in %s", true},
		{"broken YAML", "#cloud-config\nkairos:\n  role: [\n", "%s:3: is not YAML: did not find expected node content", false},
		{"block of no mapping", "#cloud-config\nkairos: yes\n", "%s:2: kairos: want a mapping, got a text\n%s:2: kairos.network_token: is missing: make one with `kairos generate-token` and use it on every machine", false},
		{"block twice", block(tok, "") + "kairos:\n  role: worker\n", "%s:4: kairos: duplicate key, first on line 2", false},
		{"no token", "#cloud-config\nkairos:\n  role: worker\n", "%s:2: kairos.network_token: is missing: make one with `kairos generate-token` and use it on every machine", false},
		{"two documents", block(tok, "") + "---\nkairos: {}\n", "%s:4: is not YAML: there is a second document", false},
		{"too large", "#cloud-config\n#" + strings.Repeat("x", maxFile), "%s: is larger than 1048576 bytes", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, t.TempDir(), "a.yaml", tt.content)
			_, err := Check(file)
			if err == nil || err.Error() != strings.ReplaceAll(tt.want, "%s", file) {
				t.Errorf("got  %v\nwant %s", err, strings.ReplaceAll(tt.want, "%s", file))
			}
			if errors.Is(err, ErrNoBlock) != tt.noBlock {
				t.Errorf("ErrNoBlock: %v", !tt.noBlock)
			}
		})
	}
	if _, err := Check(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir, "a.yaml", "#cloud-config\nkairos:\n  rol: x\n  network_token: x\n  dns: 1\n")
	b := write(t, dir, "b.yaml", "#cloud-config\nkairos:\n  overlay: {mtu: 1}\n")
	_, err := Load(a, b)
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range ps {
		got = append(got, p.Origin.String()+" "+p.Key)
	}
	want := []string{a + ":3 kairos.rol", a + ":4 kairos.network_token", a + ":5 kairos.dns", b + ":3 kairos.overlay.mtu"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestMerge(t *testing.T) {
	root := t.TempDir()
	tok := newToken(t)
	cloud := write(t, root, "var/lib/cloud/instance/cloud-config.txt", block(tok, "role: worker\noverlay: {mtu: 1400, peers: ['a:1', 'b:2']}\nk3s: {env: {A: x, B: x}}"))
	oem := write(t, root, "oem/10.yaml", "#cloud-config\nkairos:\n  role: master\n  overlay:\n    peers: ['c:3']\n  k3s: {env: {B: y}}\n")
	write(t, root, "oem/20-users.yaml", "#cloud-config\nusers: []\n")
	write(t, root, "oem/05-stages.yaml", "stages:\n  boot: []\n")
	etc := write(t, root, "etc/kairos/z.yaml", "#cloud-config\r\nkairos:\r\n  network_id: office\r\n  overlay:\r\n")
	write(t, root, "etc/kairos/notes.txt", "not ours")
	files, err := Sources(root)
	if err != nil || len(files) != 5 {
		t.Fatalf("sources %q, %v", files, err)
	}
	l, err := Load(files...)
	if err != nil {
		t.Fatal(err)
	}
	c := l.Config
	if c.Role != RoleMaster || c.NetworkID != "office" || c.Overlay.MTU != 1400 || !reflect.DeepEqual(c.Overlay.Peers, []string{"c:3"}) ||
		!reflect.DeepEqual(c.K3s.Env, map[string]Secret{"A": "x", "B": "y"}) {
		t.Errorf("merged %+v, env A=%s B=%s", c, c.K3s.Env["A"].Reveal(), c.K3s.Env["B"].Reveal())
	}
	for key, want := range map[string]Origin{"kairos.role": {oem, 3}, "kairos.network_token": {cloud, 3}, "kairos.overlay.peers": {oem, 5},
		"kairos.network_id": {etc, 3}, "kairos.k3s.env.A": {cloud, 6}, "kairos.k3s.env.B": {oem, 6}} {
		if l.Origins[key] != want {
			t.Errorf("%s: %v, want %v", key, l.Origins[key], want)
		}
	}
	if !reflect.DeepEqual(l.Files, []string{cloud, oem, etc}) {
		t.Errorf("files %q", l.Files)
	}
}

func TestWarnsOfReadableToken(t *testing.T) {
	file := write(t, t.TempDir(), "a.yaml", block(newToken(t), ""))
	if l, err := Load(file); err != nil || len(l.Warnings) != 0 {
		t.Errorf("0600: %v, %v", l, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if l, err := Load(file); err != nil || len(l.Warnings) != 1 || !strings.Contains(l.Warnings.Error(), "chmod 600") {
		t.Errorf("0644: %v, %v", l, err)
	}
}

func TestApply(t *testing.T) {
	tok := newToken(t)
	l, err := Load(write(t, t.TempDir(), "a.yaml", block(tok, `
role: worker
dns: false
overlay: {mtu: 1400, cidr: 10.99.0.0/16, peers: ["a:1"], mdns: false}
k3s: {args: ["--disable=traefik", "true", "12"], env: {A: "s3cret: \"x\"\n"}}
`)))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "config")
	for range 2 { // and over what is there
		if err := Apply(l.Config, dir); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := LoadFile(filepath.Join(dir, KairosFile))
	if err != nil {
		t.Fatal(err)
	}
	if whole.NetworkToken.Reveal() != tok.Reveal() {
		t.Error("token changed")
	}
	whole.NetworkToken = l.Config.NetworkToken
	if !reflect.DeepEqual(whole, l.Config) {
		t.Errorf("got  %+v\nwant %+v", whole, l.Config)
	}
	raw, err := os.ReadFile(filepath.Join(dir, OverlayFile))
	if err != nil || strings.Contains(string(raw), "k3s") || strings.Contains(string(raw), "s3cret") || strings.Contains(string(raw), "cluster") {
		t.Errorf("overlay.yaml: %v\n%s", err, raw)
	}
	part, err := LoadFile(filepath.Join(dir, OverlayFile))
	if err != nil || !reflect.DeepEqual(part.Overlay, l.Config.Overlay) || part.Role != RoleWorker {
		t.Errorf("overlay.yaml: %+v, %v", part, err)
	}
	for name, mode := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, KairosFile): 0o600, filepath.Join(dir, OverlayFile): 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode().Perm(), err)
		}
	}
}

func TestConfigDoesNotShowSecrets(t *testing.T) {
	tok := newToken(t)
	c := Default()
	c.NetworkToken, c.K3s.Env = tok, map[string]Secret{"A": "s3cret"}
	js, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "env", c.K3s.Env, "one", c.K3s.Env["A"])
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %q %x", c, c, c, c.K3s.Env, c.K3s.Env["A"]), string(js), log.String()} {
		if strings.Contains(s, "s3cret") || strings.Contains(s, tok.Reveal()) || strings.Contains(s, fmt.Sprintf("%x", "s3cret")) {
			t.Errorf("shows a secret: %s", s)
		}
	}
}
