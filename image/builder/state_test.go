package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const stateScript = "root/usr/lib/kairos/initrd/usr/lib/kairos/state.sh"

// testRules has each kind of rule once.
const testRules = `
bind /oem  /var/lib/kairos/oem
bind /home /var/home
keep  /var
keep  /etc
image /etc/.updated
image /etc/app
keep  /etc/app/conf.d
image /var/lib/app
merge /etc/passwd 4
identity /etc/machine-id
identity /etc/ssh/ssh_host_*
identity /var/lib/kairos/overlay
`

// files is a tree: a path that ends in / is a directory, content that begins
// with -> a symbolic link.
type files map[string]string

func (f files) write(t *testing.T, dir string) {
	t.Helper()
	for name, content := range f {
		path := filepath.Join(dir, name)
		target, link := strings.CutPrefix(content, "->")
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case strings.HasSuffix(name, "/"):
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		case link:
			err = errors.Join(err, os.Symlink(target, path))
		default:
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// readFiles leaves out directories that are not empty.
func readFiles(t *testing.T, dir string) files {
	t.Helper()
	out := files{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		switch {
		case d.IsDir():
			if below, err := os.ReadDir(path); err != nil || len(below) > 0 {
				return err
			}
			out[name+"/"] = ""
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			out[name] = "->" + target
			return err
		default:
			data, err := os.ReadFile(path)
			out[name] = string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func with(f files, more files) files {
	out := maps.Clone(f)
	maps.Copy(out, more)
	return out
}

func without(f files, names ...string) files {
	out := maps.Clone(f)
	for _, n := range names {
		delete(out, n)
	}
	return out
}

// The image of the tests, and the data partition that its first boot makes.
var (
	testImage = files{
		"usr/lib/kairos/persist.conf": testRules,
		"etc/passwd":                  "root:x:0:0::/root:/bin/bash\ndaemon:x:5:5::/:/bin/false\n",
		"var/lib/app/state":           "v1",
		"var/log/journal/":            "",
		"var/run":                     "->/run",
		"var/.hidden":                 "v1",
		"oem/":                        "",
		"home/":                       "",
	}
	firstData = files{
		"lib/app/state": "v1", "log/journal/": "", "run": "->/run", ".hidden": "v1",
		"home/": "", "lib/kairos/oem/": "", "lib/kairos/etc/": "", "lib/kairos/etc.work/": "", "lib/kairos/os/applied": "one\n",
	}
	// usedData is what a machine has made of it.
	usedData = with(without(firstData, "lib/kairos/etc/", "lib/kairos/oem/", "home/"), files{
		"lib/app/state": "dirty", ".hidden": "mine", "lib/other/x": "x", "home/alice/diary": "d",
		"lib/kairos/oem/config.yaml": "token", "lib/kairos/overlay/identity.key": "key",
		"lib/kairos/etc/.updated": "", "lib/kairos/etc/app/main.conf": "changed", "lib/kairos/etc/app/conf.d/50.conf": "mine",
		"lib/kairos/etc/hosts": "mine", "lib/kairos/etc/machine-id": "id", "lib/kairos/etc/ssh/ssh_host_key": "key",
		"lib/kairos/etc/ssh/sshd_config": "mine",
		"lib/kairos/etc/passwd":          "root:x:0:0::/root:/bin/zsh\ndaemon:x:4:4::/:/bin/false\nalice:x:1000:1000::/home/alice:/bin/bash\n",
	})
)

var stateCases = []struct {
	name    string
	resumed bool  // tested with power failures too
	image   files // over testImage
	data    files
	id      string
	want    files
}{
	{"first boot", true, nil, files{}, "one", firstData},
	{"what came with the disk stays", false, nil, files{"lost+found/": "", "home/x": "x"}, "one",
		with(without(firstData, "home/"), files{"lost+found/": "", "home/x": "x"})},
	{"the same image again", false, files{"var/lib/app/more": "v1"}, usedData, "one", usedData},
	{"another image", true, files{"var/lib/app/state": "v2", "var/lib/new/x": "v2", "var/.hidden": "v2"}, usedData, "two",
		with(without(usedData, "lib/kairos/etc/.updated", "lib/kairos/etc/app/main.conf"), files{
			"lib/app/state": "v2", "lib/new/x": "v2", "lib/kairos/os/applied": "two\n",
			"lib/kairos/etc/passwd": "root:x:0:0::/root:/bin/zsh\ndaemon:x:5:5::/:/bin/false\nalice:x:1000:1000::/home/alice:/bin/bash\n",
		})},
	{"reset", false, nil, with(usedData, files{"lib/kairos/reset": "reset\n"}), "one",
		with(without(firstData, "lib/kairos/oem/"), files{"lib/kairos/oem/config.yaml": "token"})},
	{"reset that keeps the identity", true, nil, with(usedData, files{"lib/kairos/reset": "reset keep-identity\n"}), "one",
		with(without(firstData, "lib/kairos/oem/", "lib/kairos/etc/"), files{
			"lib/kairos/oem/config.yaml": "token", "lib/kairos/overlay/identity.key": "key",
			"lib/kairos/etc/machine-id": "id", "lib/kairos/etc/ssh/ssh_host_key": "key",
		})},
	{"reset of a machine that was never used", false, nil, files{"lib/kairos/reset": "reset\n"}, "one", firstData},
	{"reset together with another image", false, files{"var/lib/app/state": "v2"}, with(usedData, files{"lib/kairos/reset": "reset\n"}), "two",
		with(without(firstData, "lib/kairos/oem/"), files{"lib/kairos/oem/config.yaml": "token", "lib/app/state": "v2", "lib/kairos/os/applied": "two\n"})},
}

func TestState(t *testing.T) {
	for _, tt := range stateCases {
		t.Run(tt.name, func(t *testing.T) {
			m := newStateMachine(t, with(testImage, tt.image), tt.data)
			if out, err := m.boot(tt.id); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			compareFiles(t, readFiles(t, m.data), tt.want)
		})
	}
}

// A power failure at any moment - before any command that changes something -
// costs nothing but another boot.
func TestStateIsResumed(t *testing.T) {
	for _, tt := range stateCases {
		if !tt.resumed {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for cut := 1; ; cut++ {
				m := newStateMachine(t, with(testImage, tt.image), tt.data)
				out, err := m.boot(tt.id, cutAfter(t, cut)...)
				if err == nil {
					if cut < 10 {
						t.Errorf("only %d commands were cut short", cut-1)
					}
					break
				}
				if !strings.Contains(out, "power failure") {
					t.Fatalf("cut %d: %v\n%s", cut, err, out)
				}
				if out, err := m.boot(tt.id); err != nil {
					t.Fatalf("boot after cut %d: %v\n%s", cut, err, out)
				}
				if compareFiles(t, readFiles(t, m.data), tt.want); t.Failed() {
					t.Fatalf("after a power failure before command %d:\n%s", cut, out)
				}
			}
		})
	}
}

// stateMachine is an image and the data partition of a machine.
type stateMachine struct{ image, data string }

func newStateMachine(t *testing.T, image, data files) *stateMachine {
	t.Helper()
	m := &stateMachine{t.TempDir(), t.TempDir()}
	image.write(t, m.image)
	data.write(t, m.data)
	return m
}

func (m *stateMachine) boot(id string, env ...string) (string, error) {
	cmd := exec.Command("/bin/sh", stateScript, m.image, m.data, id)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// cutAfter returns an environment in which the n-th command that changes
// something is not carried out, and nothing after it.
func cutAfter(t *testing.T, n int) []string {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
echo "$*" >>%[1]s/log
[ "$(wc -l <%[1]s/log)" -lt %[2]d ] || { echo "power failure before ${0##*/} $*" && kill -9 $PPID; exit 1; }
PATH=${PATH#*:} exec "${0##*/}" "$@"
`, dir, n)
	for _, name := range []string{"rm", "mv", "cp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
}

func compareFiles(t *testing.T, got, want files) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(with(got, want))) {
		g, there := got[name]
		w, wanted := want[name]
		switch {
		case !there:
			t.Errorf("%s is missing", name)
		case !wanted:
			t.Errorf("%s is there: %q", name, g)
		case g != w:
			t.Errorf("%s: got %q, want %q", name, g, w)
		}
	}
}
