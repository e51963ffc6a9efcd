package dns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const plain = "127.0.0.1 localhost\n# mine\n10.1.1.1 nas"

func TestEditHosts(t *testing.T) {
	block := "# kairos kairos0 begin\n10.7.0.1 a\n# kairos kairos0 end\n"
	other := "# kairos kairos1 begin\n10.8.0.1 b\n# kairos kairos1 end\n"
	for name, c := range map[string]struct {
		text  string
		lines []string
		want  string
	}{
		"nothing":          {plain, nil, plain},
		"new":              {plain, []string{"10.7.0.1 a"}, plain + "\n" + block},
		"empty file":       {"", []string{"10.7.0.1 a"}, block},
		"removed":          {plain + "\n" + block, nil, plain + "\n"},
		"unchanged":        {plain + "\n" + block, []string{"10.7.0.1 a"}, plain + "\n" + block},
		"another mesh":     {other, []string{"10.7.0.1 a"}, other + block},
		"in the middle":    {block + other, nil, other},
		"twice":            {block + plain + "\n" + block, []string{"10.7.0.1 a"}, plain + "\n" + block},
		"end is missing":   {"# kairos kairos0 begin\n10.1.1.1 nas\n", nil, "10.1.1.1 nas\n"},
		"end missing once": {"# kairos kairos0 begin\n10.1.1.1 nas\n" + block, nil, "10.1.1.1 nas\n"},
		"windows endings":  {"1.1.1.1 x\r\n# kairos kairos0 begin\r\n10.7.0.1 a\r\n# kairos kairos0 end\r\n", nil, "1.1.1.1 x\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(editHosts([]byte(c.text), "kairos0", c.lines)); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func FuzzEditHosts(f *testing.F) {
	f.Add(plain)
	f.Add("# kairos k begin\n# kairos k end")
	f.Add("# kairos k begin\n# kairos k begin\nx\n# kairos k end\n")
	f.Fuzz(func(t *testing.T, text string) {
		clean := string(editHosts([]byte(text), "k", nil))
		with := editHosts([]byte(clean), "k", []string{"10.7.0.1 a"})
		back := string(editHosts(with, "k", nil))
		if back != clean && back != clean+"\n" {
			t.Errorf("%q becomes %q", clean, back)
		}
		if again := editHosts(with, "k", []string{"10.7.0.1 a"}); string(again) != string(with) {
			t.Errorf("not idempotent: %q, %q", with, again)
		}
	})
}

func TestHostsFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	writeFile(t, path, plain)
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	h := hostsFile{path: link, key: "kairos0"}
	check(t, h.set([]string{"10.7.0.1 a"}))
	if got := readFile(t, path); !strings.Contains(got, "10.7.0.1 a") || !strings.HasPrefix(got, plain) {
		t.Errorf("hosts:\n%s", got)
	}
	before, _ := os.Stat(path)
	if before.Mode().Perm() != 0o664 {
		t.Errorf("mode %v", before.Mode())
	}
	check(t, h.set([]string{"10.7.0.1 a"}))
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("the file was written without a change")
	}
	check(t, h.set(nil))
	if got := readFile(t, path); got != plain+"\n" {
		t.Errorf("left behind:\n%s", got)
	}
	if names, _ := os.ReadDir(dir); len(names) != 2 {
		t.Errorf("files left: %v", names)
	}
	if err := (hostsFile{path: filepath.Join(dir, "none"), key: "k"}).set(nil); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestHostsFileIsBindMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root for a bind mount")
	}
	dir := t.TempDir()
	real, path := filepath.Join(dir, "real"), filepath.Join(dir, "hosts")
	writeFile(t, real, plain+"\n")
	writeFile(t, path, "")
	if err := unix.Mount(real, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("bind mount: %v", err)
	}
	defer func() { check(t, unix.Unmount(path, unix.MNT_DETACH)) }()
	h := hostsFile{path: path, key: "kairos0"}
	check(t, h.set([]string{"10.7.0.1 a", "10.7.0.2 b"}))
	if got := readFile(t, real); !strings.Contains(got, "10.7.0.2 b") {
		t.Errorf("the mounted file has:\n%s", got)
	}
	check(t, h.set(nil)) // and shorter again
	if got := readFile(t, real); got != plain+"\n" {
		t.Errorf("left behind:\n%s", got)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
