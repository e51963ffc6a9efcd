package config

import (
	"fmt"
	"strings"
	"testing"
)

// What cannot be read is named, with the line that it stands on.
func TestTextsThatCannotBeRead(t *testing.T) {
	good := "#cloud-config\nkairos:\n  network_token: " + newToken(t).Reveal() + "\n"
	for _, tt := range []struct{ name, text, want string }{
		{"a byte order mark is dropped", "\ufeff" + good, ""},
		{"line ends of Windows", strings.ReplaceAll(good, "\n", "\r\n"), ""},
		{"a byte order mark and line ends of Windows", "\ufeff" + strings.ReplaceAll(good, "\n", "\r\n"), ""},
		{"a tab that means nothing", good + "runcmd:\t# later\n", ""},
		{"tabs inside of a literal text", good + "runcmd:\n  - |\n    all:\n    \tmake\n", ""},

		{"UTF-16", "\xff\xfe#\x00c\x00", "no kairos block: f:1: is UTF-16: save the file as UTF-8"},
		{"Latin-1", good + "users:\n  - gecos: J\xf6rg\n", "f:5: the byte 0xF6 is not UTF-8: save the file as UTF-8, not as Latin-1 or the like"},
		{"Latin-1 in a comment", "#cloud-config\n# f\xfcr\nkairos: {}\n", "f:2: the byte 0xFC is not UTF-8: save the file as UTF-8, not as Latin-1 or the like"},
		{"control character", good + "users:\n  - gecos: \x07\n", `f:5: the control character 0x07 cannot stand in YAML: remove it, or write it as "\x07" in double quotes`},
		{"control character of Latin-1", good + "a: \u0080\n", `f:4: the control character 0x80 cannot stand in YAML: remove it, or write it as "\x80" in double quotes`},
		{"tab below a key", "#cloud-config\nkairos:\n\trole: worker\n", "f:3: a tab stands where YAML takes spaces only: indent with spaces"},
		{"tab after spaces", "#cloud-config\na:\n  - b\n \t- c\n", "f:4: a tab stands where YAML takes spaces only: indent with spaces"},
		{"tab below a value", "#cloud-config\na: x\n\ty: z\n", "f:3: a tab stands where YAML takes spaces only: indent with spaces"},
		{"tab behind a dash", "#cloud-config\na:\n  -\tc: d\n", "f:3: a tab stands where YAML takes spaces only: indent with spaces"},
		{"tab in a literal text", "#cloud-config\na: |\n  x\n\ty\nb: c\n", "f:4: a tab stands where YAML takes spaces only: indent with spaces"},
		{"a mark that begins nothing", "#cloud-config\na: 1\nb: @home\n", "f:3: no value in YAML begins with @: put it in quotes"},
		{"another one, and tabs elsewhere", "#cloud-config\na: |\n  x\n  \ty\nb: [`date`]\n", "f:5: no value in YAML begins with `: put it in quotes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := CheckText("f", []byte(tt.text))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// Looking for what is wrong takes no longer than reading: the largest file is told at once.
func TestLargeTextThatCannotBeRead(t *testing.T) {
	lines := maxFile/2 - 100
	_, err := CheckText("f", []byte("#cloud-config\n"+strings.Repeat("#\n", lines)+"a: \xe4\n"))
	if want := fmt.Sprintf("f:%d: the byte 0xE4", lines+2); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// What the check takes, the machine takes, and the reason is the same.
func TestCheckIsTheMachines(t *testing.T) {
	good := block(newToken(t), "")
	for _, tt := range []struct{ name, keys, want string }{
		{"no such key", "", ""},
		{"a good name", "hostname: node-1\n", ""},
		{"a good template", "hostname: \"n-{{ trunc 4 .MachineID }}\"\n", ""},
		{"keys that are cloud-init's alone", "users: [{name: ada}]\nrunning_late: true\n", ""},
		{"underscore", "hostname: node_1\n", `:4: hostname: "node_1" is not a host name: labels of letters, digits and -, not at the ends, with dots between`},
		{"unknown field", "hostname: \"n-{{ trunc 4 .Random }}\"\n", `:4: hostname: "n-{{ trunc 4 .Random }}": a template may hold {{ .MachineID }} and {{ trunc N .MachineID }} only`},
		{"a template without quotes", "hostname: {{ .MachineID }}\n", ":4: hostname: want a text, got a mapping; put a template in quotes"},
		{"a label that is too long", "hostname: " + strings.Repeat("a", 64) + "\n", `" has a part of 64 characters, DNS takes 63`},
		{"a name that is too long", "hostname: " + strings.Repeat("a.", 32) + "b\n", `" has 65 characters, the kernel takes 64`},
		{"fqdn", "fqdn: \"{{ .MachineID }}.example\"\n", ":4: fqdn: takes no template: use hostname"},
		{"aliases without end", bomb(), ":2: has more than 100000 values, counting aliases"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, t.TempDir(), "a.yaml", good+tt.keys)
			_, machineErr := LoadSystem(machine, file)
			_, checkErr := Check(file)
			_, textErr := CheckText(file, []byte(good+tt.keys))
			for who, err := range map[string]error{"the machine": machineErr, "the check": checkErr, "the installer": textErr, "the intake": CheckPart(file, machine)} {
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.want)) {
					t.Errorf("%s says %v\nwant %q", who, err, tt.want)
				}
			}
		})
	}
}

// bomb is a small text whose aliases stand for ten million values.
func bomb() string {
	out := "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
	for c := 'b'; c < 'i'; c++ {
		out += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n"
	}
	return out
}
