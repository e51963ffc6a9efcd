package builder

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/systemd"
)

func TestPackages(t *testing.T) {
	tests := []struct {
		name    string
		arch    string
		flavour Flavour
		want    string // a package, or what the error says
		wrong   bool
	}{
		{"default", "amd64", "", "linux-image-cloud-amd64", false},
		{"hardware", "amd64", Generic, "intel-microcode", false},
		{"hardware, arm64", "arm64", Generic, "linux-image-arm64", false},
		{"unknown flavour", "amd64", "vanilla", `there is no flavour "vanilla"`, true},
		{"unknown architecture", "riscv64", Cloud, `no kernel for the architecture "riscv64"`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := BaseOptions{Arch: tt.arch, Flavour: tt.flavour}.packages()
			if tt.wrong {
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "hint: ") {
					t.Errorf("got %v, want %q and a hint", err, tt.want)
				}
				return
			}
			if err != nil || !slices.Contains(list, tt.want) || !slices.Contains(list, "systemd") {
				t.Errorf("got %q, %v, want %s among them", list, err, tt.want)
			}
		})
	}
}

// Two accounts with one number would be one account.
func TestAccounts(t *testing.T) {
	names, ids := map[string]bool{}, map[int]bool{}
	for _, a := range accounts {
		if names[a.name] || ids[a.id] || a.id < 100 || a.id > 999 {
			t.Errorf("%+v: a name or number that is taken, or no system account's", a)
		}
		names[a.name], ids[a.id] = true, true
	}
	if !names[systemd.User] || !ids[systemd.UserID] {
		t.Error("the overlay's user is not in the image: its first boot would have to add it")
	}
	hook := accountHook([]account{{"alice", 900, "/home", true}, {"bobs", 901, "", true}, {"carol", 902, "/", false}})
	for _, line := range []string{"alice:x:900:900::/home:/usr/sbin/nologin\n", "bobs:x:901:\n", "carol:x:902:65534::/:/usr/sbin/nologin\n", "carol:!*:"} {
		if !strings.Contains(hook, line) {
			t.Errorf("%q lacks %q", hook, line)
		}
	}
}

// Each rule of persist.conf is of a form that state.sh reads, and lies where it
// reaches.
func TestPersistConf(t *testing.T) {
	text, err := os.ReadFile("root/usr/lib/kairos/persist.conf")
	if err != nil {
		t.Fatal(err)
	}
	bound := []string{"/etc", "/var"}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		ok := len(f) == 2
		switch f[0] {
		case "bind":
			ok = len(f) == 3 && strings.HasPrefix(f[2], "/var/")
			bound = append(bound, f[1])
		case "merge":
			ok = len(f) == 3 && strings.HasPrefix(f[1], "/etc/")
			if n, err := strconv.Atoi(f[len(f)-1]); err != nil || n < 1 || n > 4 {
				ok = false
			}
		case "keep", "image", "identity":
		default:
			ok = false
		}
		inside := slices.ContainsFunc(bound, func(dir string) bool { return f[1] == dir || strings.HasPrefix(f[1], dir+"/") })
		if !ok || !inside || path.Clean(f[1]) != f[1] {
			t.Errorf("wrong rule: %s", line)
		}
	}
}
