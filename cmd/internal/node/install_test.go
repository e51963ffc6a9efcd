package node

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/install"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/overlay/token"
)

const lsblk = `{"blockdevices":[
 {"path":"/dev/sda","type":"disk","size":32010928128,"ro":false,"model":"Stick","tran":"usb","mountpoints":[null],
  "children":[{"path":"/dev/sda1","type":"part","size":1,"fstype":"vfat","mountpoints":[null]}]},
 {"path":"/dev/vda","type":"disk","size":21474836480,"ro":false,"tran":"virtio","serial":"disk0","mountpoints":[null]},
 {"path":"/dev/vdb","type":"disk","size":21474836480,"ro":false,"tran":"virtio","serial":"disk1","fstype":"ext4","label":"data","mountpoints":[null]},
 {"path":"/dev/sr0","type":"rom","size":5,"ro":false,"fstype":"iso9660","label":"cidata","mountpoints":[null]}
]}`

// site is a machine to install on that notes what would be done.
type site struct {
	order   *install.Order
	volumes map[string]string // "device:file" -> text
	fails   error
}

func (s *site) tools() installTools {
	return installTools{
		find: func() (slots.Machine, error) {
			return slots.Machine{Disk: slots.Device{Path: "/dev/sda"}, Live: true}, nil
		},
		list:    func(context.Context) (install.Listing, error) { return install.Listing{Lsblk: []byte(lsblk)}, nil },
		minSize: func() (int64, error) { return 8 << 30, nil },
		real: func(path string) (string, error) {
			if path == "/dev/disk/by-id/x" {
				return "/dev/vda", nil
			}
			if !strings.HasPrefix(path, "/dev/sd") && !strings.HasPrefix(path, "/dev/vd") {
				return "", os.ErrNotExist
			}
			return path, nil
		},
		text: func(device, name string) ([]byte, error) {
			if text, ok := s.volumes[device+":"+name]; ok {
				return []byte(text), nil
			}
			return nil, os.ErrNotExist
		},
		esp: func(context.Context, slots.Machine) (string, error) { return "/dev/sda1", nil },
		fetch: func(_ context.Context, u *url.URL) ([]byte, error) {
			return nil, fmt.Errorf("the configuration of %s: no route", u)
		},
		run: func(_ context.Context, o install.Order) error {
			s.order = &o
			o.Say("making partitions on " + o.Disk.Path)
			o.Progress("write the root", 1<<30, 1<<30)
			return s.fails
		},
		now: func() time.Time { return time.Unix(0, 0) },
	}
}

func goodConfig(t *testing.T) string {
	t.Helper()
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	return "#cloud-config\nkairos: {network_token: " + tok.Reveal() + "}\n"
}

func TestInstall(t *testing.T) {
	good := goodConfig(t)
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	const known = "installed on /dev/vda; remove the medium and reboot"
	tests := []struct {
		name     string
		args     string
		typed    string
		terminal bool
		disk     string // that was installed on; "" for none
		config   bool
		says     string
	}{
		{"--yes", "/dev/vda --yes --config " + file, "", false, "/dev/vda", true, known},
		{"no configuration", "/dev/vda --yes", "", false, "/dev/vda", false, "it has no configuration yet: its console says how to give it one"},
		{"another name of the disk", "/dev/disk/by-id/x --yes", "", false, "/dev/vda", false, known},
		{"typed", "/dev/vdb", "vdb\n", true, "/dev/vdb", false, "kairos: /dev/vdb  20.0 GiB  disk1  (virtio) will be erased; on it: ext4 data\nkairos: type vdb to erase it and install: "},
		{"typed wrongly", "/dev/vda", "vdb\n", true, "", false, "nothing was changed"},
		{"yes is no name", "/dev/vda", "yes\n", true, "", false, `nothing was changed: "yes" does not name /dev/vda`},
		{"named in another way", "vdb", "disk1\n", true, "/dev/vdb", false, "installed on /dev/vdb"},
		{"by a link's name, typed by its number", "x", "disk0\n", true, "/dev/vda", false, known},
		{"end of input", "/dev/vda", "", true, "", false, "nothing was changed"},
		{"nobody is there", "/dev/vda", "vda\n", false, "", false, "hint: add --yes"},
		{"the medium", "/dev/sda --yes", "", false, "", false, "cannot install on /dev/sda: this system runs from it"},
		{"a partition", "/dev/sda1 --yes", "", false, "", false, "/dev/sda1 is not a whole disk: the one it is on is /dev/sda"},
		{"no disk", "/dev/none --yes", "", false, "", false, "there is no disk /dev/none\nkairos: hint: the disks are: /dev/vda, /dev/vdb"},

		{"wizard", "", "1\n\nvda\n", true, "/dev/vda", false, known},
		{"wizard, by name", "", "/dev/vdb\n" + file + "\nvdb\n", true, "/dev/vdb", true, "installed on /dev/vdb"},
		{"wizard, by the end of its path, and again", "", "vdb\nnone\n/dev/vdb\n", true, "/dev/vdb", false, "installed on /dev/vdb"},
		{"wizard, second thoughts", "", "\n9\n2\nnone.yaml\nhttps://a/b\nnone\nvdb\n", true, "/dev/vdb", false, "the configuration of https://a/b: no route"},
		{"wizard with a configuration", "--config " + file, "1\n\nvda\n", true, "/dev/vda", true, "configuration: a file, a URL or none? [" + file + "] "},
		{"wizard, the medium by name", "", "/dev/sda\n", true, "", false, "cannot install on /dev/sda"},
		{"wizard, not confirmed", "", "1\nnone\n\n", true, "", false, "nothing was changed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &site{}
			env, out := person(tt.typed, tt.terminal)
			env.Stdout = io.Discard
			root := installCommand(env, s.tools())
			code := cli.Run(t.Context(), root, env, strings.Fields(tt.args))
			env.Program = "kairos"
			said := strings.ReplaceAll(out.String(), "install: ", "kairos: ")
			said = strings.ReplaceAll(said, "and kairos: ", "and install: ") // the verb in the prompt
			if (s.order != nil) != (tt.disk != "") || s.order != nil && s.order.Disk.Path != tt.disk {
				t.Errorf("installed %+v, want on %q", s.order, tt.disk)
			}
			if s.order != nil && (s.order.Config != nil) != tt.config {
				t.Errorf("with a configuration: %v", s.order.Config != nil)
			}
			if (code == 0) != (tt.disk != "") || !strings.Contains(said, tt.says) {
				t.Errorf("code %d, said:\n%s\nwant %q", code, said, tt.says)
			}
		})
	}
}

// The prompts are what a test of the medium waits for; README shows them.
func TestWizardPrompts(t *testing.T) {
	good := goodConfig(t) + "p2p: {}\n"
	s := &site{volumes: map[string]string{"/dev/sda1:config.yaml": good, "/dev/sr0:user-data": "#cloud-config\nkairos: {rolle: x}\n"}}
	env, out := person("1\n\nvda\n", true)
	i := &installer{env: env, tools: s.tools(), ask: newAsker(env)}
	if err := i.wizard(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	want := `kairos: this installs kairos mesh ` + cli.RunningVersion() + ` on a disk of this machine
kairos:   1  /dev/vda  20.0 GiB  disk0  (virtio)  
kairos:   2  /dev/vdb  20.0 GiB  disk1  (virtio)  ext4 data
kairos:   -  /dev/sda  29.8 GiB  Stick  (usb): this system runs from it
kairos: which disk? [1-2, Enter lists them again] kairos: found a configuration: /dev/sda1:config.yaml
kairos: warning: /dev/sda1:config.yaml:3: p2p: nobody reads it here: the block is called kairos here, and ` + "`kairos-agent config --schema`" + ` lists its keys
kairos: /dev/sr0:user-data:2: kairos.rolle: unknown key; did you mean role?
kairos: /dev/sr0:user-data:2: kairos.network_token: is missing: make one with ` + "`kairos generate-token`" + ` and use it on every machine
kairos: configuration: a file, a URL or none? [/dev/sda1:config.yaml] kairos: /dev/vda  20.0 GiB  disk0  (virtio) will be erased; on it: nothing that is known
kairos: type vda to erase it and install: kairos: making partitions on /dev/vda
`
	got, rest, _ := strings.Cut(out.String(), "\r")
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if !strings.HasSuffix(rest, "\nkairos: installed on /dev/vda; remove the medium and reboot\n") {
		t.Errorf("at the end: %q", rest)
	}
	if s.order == nil || string(s.order.Config) != good {
		t.Error("the configuration of the medium was not taken")
	}
}

func TestInstallThatFails(t *testing.T) {
	s := &site{fails: errors.New("input/output error")}
	env, out := person("", false)
	env.Stdout = io.Discard
	if code := cli.Run(t.Context(), installCommand(env, s.tools()), env, []string{"/dev/vda", "--yes"}); code != cli.ExitFailure {
		t.Errorf("code %d", code)
	}
	if said := out.String(); !strings.Contains(said, "install on /dev/vda: input/output error") || !strings.Contains(said, "installing can be started over") {
		t.Errorf("said %s", said)
	}
}

// terminal makes a pseudo terminal with this name in dir, and returns the side
// where a person sits.
func terminal(t *testing.T, dir, name string) *os.File {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("/dev/pts/%d", n), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	return person
}

// Whoever types first is heard, and everybody sees it. tty0 is the screen, whose
// terminal is tty1, and a serial line that is configured may not be there.
func TestConsolesAreOne(t *testing.T) {
	dir := t.TempDir()
	people := map[string]*os.File{"tty1": terminal(t, dir, "tty1"), "ttyS1": terminal(t, dir, "ttyS1")}
	c, err := openConsoles(dir, []string{"tty0", "ttyS0", "ttyS1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	screens := map[string]*bufio.Reader{}
	for name, f := range people {
		screens[name] = bufio.NewReader(f)
	}
	ask := newAsker(c.env())
	for _, name := range []string{"ttyS1", "tty1", "ttyS1"} {
		answered := make(chan string)
		go func() {
			got, err := ask.line(t.Context(), "who?\n")
			answered <- fmt.Sprint(got, err)
		}()
		if _, err := people[name].WriteString(name + "\r"); err != nil {
			t.Fatal(err)
		}
		if got := <-answered; got != name+"<nil>" {
			t.Errorf("heard %s from %s", got, name)
		}
		c.env().Say("it was %s", name)
		for other, screen := range screens {
			for line := ""; !strings.Contains(line, "it was "+name); {
				if line, err = screen.ReadString('\n'); err != nil {
					t.Fatalf("%s shows nothing: %v", other, err)
				}
			}
		}
	}
	if _, err := openConsoles(dir, []string{"ttyS0"}); err == nil || !strings.Contains(err.Error(), "there is none") {
		t.Errorf("got %v", err)
	}
}

// A machine whose configuration nobody can log in to correct is corrected from a medium:
// who asks for a shell has one, on that console alone, and the installer waits (fault H5).
func TestShellOfTheMedium(t *testing.T) {
	dir := t.TempDir()
	person, other := terminal(t, dir, "tty1"), terminal(t, dir, "ttyS0")
	c, err := openConsoles(dir, []string{"tty0", "ttyS0"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.command = func() *exec.Cmd {
		return exec.Command("sh", "-c", `read line </dev/tty; echo "it is $line" >/dev/tty`)
	}
	type line struct{ from, text string }
	lines := make(chan line, 64)
	for name, f := range map[string]*os.File{"screen": person, "serial": other} {
		go func() {
			for scan := bufio.NewScanner(f); scan.Scan(); {
				lines <- line{name, scan.Text()}
			}
		}()
	}
	sees := func(from, text string) {
		t.Helper()
		for deadline := time.After(time.Minute); ; {
			select {
			case l := <-lines:
				if strings.Contains(l.text, "only for the serial line") && l.from == "screen" {
					t.Error("the installer writes over the shell")
				}
				if l.from == from && strings.Contains(l.text, text) {
					return
				}
			case <-deadline:
				t.Fatalf("the %s does not show %q", from, text)
			}
		}
	}
	answers := make(chan string)
	go func() {
		got, err := newAsker(c.env()).line(t.Context(), "which disk? ")
		answers <- fmt.Sprint(got, err)
	}()
	_, err = person.WriteString("shell\r")
	if err != nil {
		t.Fatal(err)
	}
	sees("screen", "a shell of this medium")
	c.env().Say("only for the serial line")
	sees("serial", "only for the serial line")
	_, err = person.WriteString("alive\r")
	if err != nil {
		t.Fatal(err)
	}
	sees("screen", "it is alive")
	if got := <-answers; got != "<nil>" {
		t.Errorf("the installer was answered %q", got)
	}
	c.env().Say("back")
	sees("screen", "back")
}

// The wizard of a live medium starts over after everything that goes wrong.
func TestServeConsolesStartsOver(t *testing.T) {
	s := &site{fails: errors.New("the disk is broken")}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	terminal, out := true, &strings.Builder{}
	env := &cli.Env{Stdin: r, Stderr: out, Program: "kairos", Terminal: &terminal}
	done := make(chan error, 1)
	go func() { done <- serveConsoles(ctx, env, s.tools()) }()
	for _, line := range []string{"1", "none", "wrong", "", "1", "none", "vda", ""} {
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(w, "2\n"); err != nil { // the third round has begun
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	said := out.String()
	for _, want := range []string{"nothing was changed", "the disk is broken", "press Enter to start over: "} {
		if !strings.Contains(said, want) {
			t.Errorf("did not say %q:\n%s", want, said)
		}
	}
}
