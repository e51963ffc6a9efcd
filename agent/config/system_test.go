package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const machine = "0123456789abcdef0123456789abcdef"

func TestRenderHostname(t *testing.T) {
	tests := []struct{ name, in, want, err string }{
		{"plain", "alpha", "alpha", ""},
		{"dots", "alpha.example.org", "alpha.example.org", ""},
		{"capitals are the person's choice", "Alpha", "Alpha", ""},
		{"default", DefaultHostname, "kairos-0123", ""},
		{"whole ID", "n{{.MachineID}}", "n" + machine, ""},
		{"pipe", "n-{{ .MachineID | trunc 6 }}", "n-012345", ""},
		{"the end", "n-{{ trunc -4 .MachineID }}", "n-cdef", ""},
		{"more than there is", "{{ trunc 99 .MachineID }}", machine, ""},
		{"two", "{{ trunc 2 .MachineID }}-{{ trunc -2 .MachineID }}", "01-ef", ""},
		{"trimmed", "a-{{- trunc 2 .MachineID -}}-b", "a-01-b", ""},

		{"empty", "", "", "is empty"},
		{"space", "my host", "", "is not a host name"},
		{"dash", "-a", "", "is not a host name"},
		{"underscore", "a_b", "", "is not a host name"},
		{"long", strings.Repeat("a", 63) + ".b", "", "has 65 characters"},
		{"long when filled", "{{.MachineID}}-{{.MachineID}}-{{.MachineID}}", "", "becomes"},
		{"another field", "{{ .Machine }}", "", "{{ .MachineID }} and {{ trunc N .MachineID }} only"},
		{"another function", "{{ upper .MachineID }}", "", `function "upper" not defined`},
		{"a built-in function", "{{ printf .MachineID }}", "", "only"},
		{"no number", `{{ trunc "4" .MachineID }}`, "", "only"},
		{"a condition", "{{ if .MachineID }}a{{ end }}", "", "only"},
		{"a variable", "{{ $x := .MachineID }}a", "", "only"},
		{"three", "{{ .MachineID | trunc 3 | trunc 2 }}", "", "only"},
		{"not closed", "a-{{ trunc 4 .MachineID", "", "is not a template"},
		{"closed twice", "a-}}", "", "is not a host name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := RenderHostname(tt.in, machine)
			if tt.err == "" && (err != nil || got != tt.want) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %q, %v; want an error with %q", got, err, tt.err)
			}
		})
	}
	if _, err := RenderHostname(DefaultHostname, ""); err == nil {
		t.Error("a template was filled without an ID")
	}
}

func TestLoadSystem(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir, "a.yaml", `#cloud-config
# the token of it: SECRET
kairos: &k
  network_token: SECRET
users:
  - name: root # the first
    ssh_authorized_keys: &keys [ssh-ed25519 AAAA a]
chpasswd: {expire: false}
ssh_authorized_keys: *keys
hostname: "n-{{ trunc 4 .MachineID }}"
copy: *k
write_files:
  - {path: /etc/a, permissions: 0644, content: "{{ .NotOurs }}"}
`)
	b := write(t, dir, "b.yaml", "#cloud-config\nusers: [{name: b}]\nchpasswd: {list: [a]}\nssh_pwauth: no\n")
	c := write(t, dir, "c.yaml", "#cloud-config\nkairos: {role: worker}\n")
	d := write(t, dir, "d.yaml", "#!/bin/sh\nnot: ours\n")
	o, err := LoadSystem(machine, a, b, c, d)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Files) != 2 || o.Files[0] != a || o.Files[1] != b {
		t.Errorf("files %v", o.Files)
	}
	got, err := o.CloudConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := `#cloud-config
# Written by kairos-agent; edits are lost.
users: [{name: b}]
chpasswd:
  expire: false
  list: [a]
ssh_authorized_keys: [ssh-ed25519 AAAA a]
hostname: n-0123
copy:
  network_token: SECRET
write_files:
  - {path: /etc/a, permissions: 0644, content: "{{ .NotOurs }}"}
ssh_pwauth: no
`
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if h := o.Hostname(); h.Name != "n-0123" || !h.Template || h.Origin.String() != a+":10" {
		t.Errorf("hostname %+v", h)
	}
	if n, err := o.NetworkConfig(); err != nil || n != nil || o.HasNetwork() {
		t.Errorf("network %q, %v", n, err)
	}
}

func TestLoadSystemNetworkAndMergeKeys(t *testing.T) {
	file := write(t, t.TempDir(), "a.yaml", "#cloud-config\nbase: &b {a: 1}\nother:\n  <<: *b\n  c: 2\nnetwork: {version: 2, ethernets: {}}\n")
	o, err := LoadSystem(machine, file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.CloudConfig()
	if err != nil || !strings.Contains(string(got), "other:\n  <<: {a: 1}\n  c: 2\n") {
		t.Errorf("%v\n%s", err, got)
	}
	n, err := o.NetworkConfig()
	if err != nil || !strings.HasSuffix(string(n), "network: {version: 2, ethernets: {}}\n") {
		t.Errorf("%v\n%s", err, n)
	}
}

func TestLoadSystemProblems(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"yaml", "#cloud-config\na: [\n", ":2: is not YAML: did not find expected node content"},
		{"list", "#cloud-config\n- a\n", ":2: want a mapping, got a list"},
		{"template", "#cloud-config\nusers: []\nhostname: 'a-{{ foo }}'\n", `:3: hostname: "a-{{ foo }}" is not a template (function "foo" not defined); a template may hold`},
		{"no quotes", "#cloud-config\nhostname: {{ trunc 4 .MachineID }}\n", ":2: "},
		{"mapping", "#cloud-config\nhostname: {a: b}\n", ":2: hostname: want a text, got a mapping; put a template in quotes"},
		{"nothing", "#cloud-config\nhostname:\n", ":2: hostname: want a text, got nothing"},
		{"fqdn", "#cloud-config\nfqdn: 'a-{{ trunc 4 .MachineID }}.b'\n", ":2: fqdn: takes no template: use hostname"},
		{"bomb", "#cloud-config\n" + bomb(), "has more than 100000 values"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, t.TempDir(), "a.yaml", tt.text)
			_, err := LoadSystem(machine, file)
			var problems Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestCheckPart(t *testing.T) {
	tok := newToken(t).Reveal()
	tests := []struct{ name, text, want string }{
		{"whole", "#cloud-config\nkairos: {network_token: " + tok + "}\n", ""},
		{"no token", "#cloud-config\nkairos: {role: worker}\n", ""},
		{"keys of the system only", "#cloud-config\nusers: []\n", ""},
		{"both", "#cloud-config\nkairos: {role: worker}\nusers: []\n", ""},
		{"bad block beside good keys", "#cloud-config\nusers: []\nkairos: {rolle: worker}\n", ":3: kairos.rolle: unknown key; did you mean role?"},
		{"bad keys beside a good block", "#cloud-config\nkairos: {role: worker}\nhostname: a b\n", `:3: hostname: "a b" is not a host name`},
		{"misspelt block beside good keys", "#cloud-config\nusers: []\nkairso: {role: worker}\n", ":3: kairso: unknown key; did you mean kairos?"},
		{"no header", "kairos: {role: worker}\n", ":1: is not a cloud-config: the first line must be #cloud-config"},
		{"byte order mark", "\ufeff#cloud-config\nkairos: {role: worker}\n", ""},
		{"empty", "#cloud-config\n", "no kairos block in "},
		{"web page", "<!DOCTYPE html>\n<html>", ":1: is not a cloud-config"},
		{"not YAML, told once", "#cloud-config\na: [\n", ":2: is not YAML"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, t.TempDir(), "a.yaml", tt.text)
			err := CheckPart(file, machine)
			if tt.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("got %v, want %q in one line", err, tt.want)
			}
		})
	}
	if err := CheckPart(filepath.Join(t.TempDir(), "none.yaml"), machine); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Later sources win: what a person puts at the boot prompt wins over what lies
// on the disk, and local files over a datasource.
func TestSourcesInOrder(t *testing.T) {
	dir := t.TempDir()
	order := []string{
		"var/lib/kairos/config/datasource.yaml", "var/lib/cloud/instance/cloud-config.txt",
		"oem/10-a.yaml", "oem/80-esp.yaml", "oem/90-install.yaml", "etc/kairos/config.yaml",
		"run/kairos/sources/50-credential.yaml", "run/kairos/sources/60-argument.yaml",
	}
	for i := range order {
		write(t, dir, order[len(order)-1-i], "")
	}
	write(t, dir, "oem/ignored.txt", "")
	for _, tt := range []struct {
		name string
		list func(string) ([]string, error)
		want []string
	}{{"all", Sources, order}, {"local", LocalSources, order[2:]}} {
		got, err := tt.list(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], dir+"/")
		}
		if strings.Join(got, " ") != strings.Join(tt.want, " ") {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestHasBlock(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]bool{
		"#cloud-config\nkairos: {x: y}\n": true, "#cloud-config\nusers: []\n": false, "kairos: [": false, "": false,
	} {
		if got := HasBlock(write(t, dir, "a", text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if HasBlock(filepath.Join(dir, "none")) {
		t.Error("a file that is not there has a block")
	}
}

func TestCheckText(t *testing.T) {
	good := "#cloud-config\nkairos: {network_token: " + newToken(t).Reveal() + "}\n"
	tests := []struct{ name, text, want string }{
		{"good", good + "hostname: 'a-{{ trunc 4 .MachineID }}'\n", ""},
		{"no token", "#cloud-config\nkairos: {role: worker}\n", "x:2: kairos.network_token: is missing"},
		{"bad template", good + "hostname: 'a-{{ cut }}'\n", `x:3: hostname: "a-{{ cut }}" is not a template`},
		{"not YAML", "#cloud-config\na: [\n", "x:2: is not YAML"},
		{"empty", "", "no kairos block"},
		{"large", good + strings.Repeat("#", maxFile), "x: is larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		_, err := CheckText("x", []byte(tt.text))
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
