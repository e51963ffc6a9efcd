package intake

import (
	"crypto/rand"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/overlay/token"
)

// credentialFile is where newMachine's credential lies.
const credentialFile = "run/credentials/kairos-intake.service/kairos.config"

const machineID = "0123456789abcdef0123456789abcdef"

// newMachine is a root directory with an ID, a command line and given files.
func newMachine(t testing.TB, files map[string]string) Machine {
	t.Helper()
	root := t.TempDir()
	m := Machine{Root: root, Credentials: filepath.Join(root, filepath.Dir(credentialFile))}
	for name, text := range map[string]string{
		"etc/machine-id": machineID + "\n", "proc/cmdline": "quiet\n", "proc/sys/kernel/hostname": "kairos\n",
	} {
		if _, ok := files[name]; !ok {
			put(t, m, name, text)
		}
	}
	for name, text := range files {
		put(t, m, name, text)
	}
	return m
}

func put(t testing.TB, m Machine, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// text is the content of a file, "-" where there is none.
func text(t testing.TB, m Machine, name string) string {
	t.Helper()
	raw, err := os.ReadFile(m.path(name))
	if os.IsNotExist(err) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func mode(t testing.TB, m Machine, name string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(m.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func gather(t testing.TB, m Machine) Report {
	t.Helper()
	r, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func goodText(t testing.TB) string {
	t.Helper()
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	return "#cloud-config\nkairos:\n  network_token: " + tok.Reveal() + "\n"
}

func TestESPFileIsTakenOverAndRemoved(t *testing.T) {
	good := goodText(t)
	m := newMachine(t, map[string]string{espFile: good})
	r := gather(t, m)
	if text(t, m, espFile) != "-" || text(t, m, espTaken) != good || len(r.Done) != 1 {
		t.Errorf("after: %q, %q, %+v", text(t, m, espFile), text(t, m, espTaken), r)
	}
	if mode(t, m, espTaken) != 0o600 || mode(t, m, "oem") != 0o700 {
		t.Errorf("others may read it: %v, %v", mode(t, m, espTaken), mode(t, m, "oem"))
	}

	// A power cut between the copy and the removal: the same again.
	put(t, m, espFile, good)
	gather(t, m)
	if text(t, m, espFile) != "-" || text(t, m, espTaken) != good {
		t.Error("not finished after a power cut")
	}

	// A later one replaces it.
	put(t, m, espFile, "#cloud-config\nkairos: {role: worker}\n")
	gather(t, m)
	if !strings.Contains(text(t, m, espTaken), "worker") {
		t.Error("not replaced")
	}
}

func TestBadESPFileStays(t *testing.T) {
	bad := "#cloud-config\nkairos:\n  rolle: worker\n"
	m := newMachine(t, map[string]string{espFile: bad, espTaken: "before"})
	r := gather(t, m)
	want := "/efi/config.yaml:3: kairos.rolle: unknown key; did you mean role?"
	if len(r.Refused) != 1 || r.Refused[0] != want {
		t.Errorf("got %q, want %q", r.Refused, want)
	}
	if text(t, m, espFile) != bad || text(t, m, espTaken) != "before" {
		t.Error("something was changed")
	}
}

// Who may log in counts whatever is wrong with the kairos block of the same file: a
// machine that nobody can enter cannot be mended (fault H5).
func TestUsersOfARefusedTextCount(t *testing.T) {
	const block, who = "kairos: {rolle: worker}\n", "ssh_authorized_keys: [ssh-ed25519 AAAA x]\n"
	for name, tt := range map[string]struct{ file, taken, text, want string }{
		"ESP":              {espFile, fromESP, "#cloud-config\n" + block + who, "ssh_authorized_keys"},
		"credential":       {credentialFile, fromCredential, "#cloud-config\n" + block + who, "ssh_authorized_keys"},
		"nothing but ours": {espFile, fromESP, "#cloud-config\n" + block, "-"},
		"wrong in both":    {espFile, fromESP, "#cloud-config\nhostname: 'a b'\n" + block + who, "-"},
		"no YAML":          {credentialFile, fromCredential, "#cloud-config\nkairos: {\n", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, map[string]string{tt.file: tt.text})
			if r := gather(t, m); len(r.Refused) == 0 {
				t.Fatal("not refused")
			}
			got := text(t, m, tt.taken)
			if tt.want == "-" && got != "-" || !strings.Contains(got, tt.want) || strings.Contains(got, "rolle") {
				t.Errorf("%s is %q", tt.taken, got)
			}
		})
	}
	m := newMachine(t, map[string]string{espFile: "#cloud-config\n" + block + who, runConfig: notFound})
	gather(t, m)
	if start, err := m.HandOver(); err != nil || !start || !strings.Contains(text(t, m, seedDir+"/user-data"), "ssh-ed25519 AAAA x") {
		t.Errorf("cloud-init is not given the users: %v", err)
	}
	put(t, m, espFile, goodText(t)) // mended
	gather(t, m)
	if got := text(t, m, fromESP); got != "-" {
		t.Errorf("of the file that was refused this is left: %s", got)
	}
}

func TestESPFileOfALiveMediumIsForTheInstaller(t *testing.T) {
	m := newMachine(t, map[string]string{espFile: goodText(t), liveMark: ""})
	gather(t, m)
	if text(t, m, espFile) == "-" || text(t, m, espTaken) != "-" {
		t.Error("taken over")
	}
}

func TestCredentialAndArgument(t *testing.T) {
	worker, home := "#cloud-config\nkairos: {role: worker}\n", "#cloud-config\nkairos: {network_id: home}\n"
	m := newMachine(t, map[string]string{
		credentialFile: worker,
		"proc/cmdline": "quiet kairos.config=base64:" + base64.StdEncoding.EncodeToString([]byte(home)) + " ro\n",
	})
	r := gather(t, m)
	if text(t, m, fromCredential) != worker || text(t, m, fromArgument) != home || len(r.Refused) != 0 {
		t.Errorf("got %q, %q, %+v", text(t, m, fromCredential), text(t, m, fromArgument), r)
	}
	if mode(t, m, fromArgument) != 0o600 || mode(t, m, sourcesDir) != 0o700 {
		t.Error("others may read it")
	}

	// Both are gone with what gave them.
	put(t, m, "proc/cmdline", "quiet\n")
	if err := os.Remove(m.path(credentialFile)); err != nil {
		t.Fatal(err)
	}
	gather(t, m)
	if text(t, m, fromCredential) != "-" || text(t, m, fromArgument) != "-" {
		t.Error("they stayed")
	}
}

func TestBadTextsAreRefusedEachByItself(t *testing.T) {
	m := newMachine(t, map[string]string{
		espFile:        goodText(t),
		credentialFile: "#cloud-config\nkairos: {role: 1}\n",
		"proc/cmdline": "kairos.config=base64:" + base64.RawURLEncoding.EncodeToString([]byte("#cloud-config\nhostname: 'a b'\n")),
	})
	r := gather(t, m)
	want := []string{
		"the credential kairos.config:2: kairos.role: want a text, got a number: put it in quotes",
		`the kernel argument kairos.config:2: hostname: "a b" is not a host name: labels of letters, digits and -, not at the ends, with dots between`,
	}
	if strings.Join(r.Refused, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %q\nwant %q", r.Refused, want)
	}
	if text(t, m, fromCredential) != "-" || text(t, m, fromArgument) != "-" || text(t, m, espTaken) == "-" {
		t.Error("a refused text was taken, or a good one was not")
	}
}

func TestParseArgument(t *testing.T) {
	tests := []struct{ name, cmdline, text, url, err string }{
		{"none", "quiet ro", "", "", ""},
		{"empty", "kairos.config=", "", "", ""},
		{"another's", "xkairos.config=https://a/b", "", "", ""},
		{"url", "a kairos.config=https://a.example/c.yaml?k=v b", "", "https://a.example/c.yaml?k=v", ""},
		{"quoted value", `kairos.config="http://a/b c" d`, "", "http://a/b%20c", ""},
		{"quoted word", `"kairos.config=http://a/b" d`, "", "http://a/b", ""},
		{"the last counts", "kairos.config=http://a/ kairos.config=http://b/", "", "http://b/", ""},
		{"base64", "kairos.config=base64:YQo=", "a\n", "", ""},
		{"base64 without padding", "kairos.config=base64:YQo", "a\n", "", ""},
		{"base64 for URLs", "kairos.config=base64:Pz8_", "???", "", ""},
		{"not base64", "kairos.config=base64:S!", "", "", "is not base64"},
		{"file", "kairos.config=file:///etc/x", "", "", "want http://..., https://... or base64:TEXT"},
		{"no host", "kairos.config=http:///x", "", "", "want http://"},
		{"text", "kairos.config=SECRET", "", "", "want http://"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := parseArgument(splitWords(tt.cmdline + "\n"))
			url := ""
			if a.URL != nil {
				url = a.URL.String()
			}
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if string(a.Text) != tt.text || url != tt.url {
				t.Errorf("got %q, %q", a.Text, url)
			}
			if err != nil && strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the value is quoted: %v", err)
			}
		})
	}
}

func TestArgumentOfAContainer(t *testing.T) {
	m := newMachine(t, map[string]string{
		"run/systemd/container": "systemd-nspawn",
		"proc/cmdline":          "kairos.config=http://the.host/",
		"proc/1/cmdline":        "/usr/lib/systemd/systemd\x00kairos.config=http://mine/a b\x00",
	})
	a, err := m.Argument()
	if err != nil || a.URL == nil || a.URL.Host != "mine" {
		t.Errorf("got %v, %v", a.URL, err)
	}
}

func TestID(t *testing.T) {
	for in, want := range map[string]string{machineID + "\n": machineID, "uninitialized\n": "", "": "", machineID[1:] + "g": ""} {
		if got := newMachine(t, map[string]string{"etc/machine-id": in}).ID(); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// Whatever Gather takes in is among the files that package config reads.
func TestWhatIsTakenIsRead(t *testing.T) {
	m := newMachine(t, nil)
	for _, name := range []string{espTaken, fromCredential, fromArgument, earlierFile} {
		put(t, m, name, goodText(t))
	}
	files, err := config.Sources(m.Root)
	if err != nil || len(files) != 4 {
		t.Errorf("read: %v, %v", files, err)
	}
}
