package appliance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/vm"
)

// Deadlines, several times of what it takes where two emulated machines share
// two cores with nothing else.
const (
	aBoot    = 6 * time.Minute
	aCommand = 2 * time.Minute
	aStaging = 10 * time.Minute
	aWait    = 5 * time.Minute
)

// diskSize is what the machines' disks have: more than the image, so that there
// is something to grow into. Nothing is taken from the host until it is written.
const diskSize = 16 << 30

// story is a test with its machines. What it calls ends the test if it fails.
type story struct {
	*testing.T
	ctx   context.Context
	rack  *vm.Rack
	lan   *vm.LAN
	token string
}

// newStory begins a test of machines that share a LAN and the secret of a
// network that expects so many nodes.
func newStory(t *testing.T, nodes int) *story {
	t.Helper()
	if testing.Short() {
		t.Skip("boots virtual machines; not with -short")
	}
	s := &story{T: t, ctx: t.Context()}
	if deadline, ok := t.Deadline(); ok { // leave time to clean up
		ctx, cancel := context.WithDeadline(s.ctx, deadline.Add(-30*time.Second))
		t.Cleanup(cancel)
		s.ctx = ctx
	}
	root, err := run.RepoRoot()
	s.must(err)
	s.rack, err = vm.Open(s.ctx, root, t.Output())
	s.must(err)
	t.Cleanup(func() {
		if err := s.rack.Close(); err != nil {
			t.Error(err)
		}
		for _, m := range s.rack.Machines() {
			t.Logf("RESULT %s: %.0f s of processor time", m.Name, m.CPUTime().Seconds())
		}
	})
	t.Cleanup(s.showConsoles)
	s.lan, err = s.rack.NewLAN(s.ctx)
	s.must(err)
	secret, err := token.Generate(rand.Reader, nodes)
	s.must(err)
	s.token = secret.Reveal()
	return s
}

func (s *story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// showConsoles prints what helps to understand a failure.
func (s *story) showConsoles() {
	if !s.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, m := range s.rack.Machines() {
		s.Logf("%s: the end of its console:\n%s", m.Name, m.Console.Tail())
		if !m.Running() {
			continue
		}
		out, err := m.Exec(ctx, "systemctl --failed --no-pager --no-legend; journalctl -b --no-pager -o short-monotonic -p 6 | tail -n 100")
		s.Logf("%s: the end of its journal: %v\n%s", m.Name, err, out)
	}
}

// file writes a file for tools of this host, and returns its path.
func (s *story) file(name, text string) string {
	s.Helper()
	path := filepath.Join(s.rack.Dir(), name)
	s.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// config is a cloud-config with the test's login and the network; more is
// further lines of its kairos block, without indentation.
func (s *story) config(more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `#cloud-config
users:
- name: %s
  shell: /bin/bash
  sudo: ALL=(ALL) NOPASSWD:ALL
  ssh_authorized_keys:
  - %s
kairos:
  network_token: %q
`, vm.User, strings.TrimSpace(s.rack.AuthorizedKey()), s.token)
	for _, text := range more {
		for line := range strings.Lines(text) {
			b.WriteString("  " + strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	return b.String()
}

// overlayOnly is for tests that need no Kubernetes.
const overlayOnly = "cluster: {enabled: false}"

// guest is a machine of a story.
type guest struct {
	*vm.Machine
	s    *story
	boot string    // the kernel's identifier of the boot that was seen last
	left time.Time // when it rebooted into the last upgrade
}

// machine makes a machine of the story's LAN. Its first disk is the flashed
// image; then come the given ones.
func (s *story) machine(c vm.Config, disk string, more ...vm.Disk) *guest {
	s.Helper()
	return s.newMachine(c, append([]vm.Disk{{Image: disk, Size: diskSize}}, more...))
}

// empty is machine with nothing on its first disk.
func (s *story) empty(c vm.Config, more ...vm.Disk) *guest {
	s.Helper()
	return s.newMachine(c, append([]vm.Disk{{Size: diskSize}}, more...))
}

func (s *story) newMachine(c vm.Config, disks []vm.Disk) *guest {
	s.Helper()
	c.Disks, c.LAN = disks, s.lan
	m, err := s.rack.NewMachine(s.ctx, c)
	s.must(err)
	return &guest{Machine: m, s: s}
}

// seed is a disk with a cloud-config for cloud-init, as a cloud or a USB stick
// would hand it over.
func (s *story) seed(name, config string) vm.Disk {
	s.Helper()
	path, err := s.rack.NewSeed(s.ctx, vm.Seed{UserData: config, InstanceID: name})
	s.must(err)
	return vm.Disk{Image: path}
}

// within bounds a wait.
func (s *story) within(d time.Duration) (context.Context, context.CancelFunc) {
	d = time.Duration(float64(d) * *patience)
	return context.WithTimeoutCause(s.ctx, d, fmt.Errorf("%s are over", d))
}

// on switches the machine on.
func (g *guest) on() *guest {
	g.s.Helper()
	g.s.must(g.Start(g.s.ctx))
	return g
}

// up waits until one can log in, and says how long that took since a time.
func (g *guest) up(since time.Time) *guest {
	g.s.Helper()
	ctx, cancel := g.s.within(aBoot)
	defer cancel()
	g.s.must(g.awaitReboot(ctx))
	g.s.Logf("%s: login after %.0f s", g.Name, time.Since(since).Seconds())
	return g
}

// awaitReboot waits until one can log in to a boot that was not seen before.
func (g *guest) awaitReboot(ctx context.Context) error {
	id, err := g.AwaitBoot(ctx, g.boot)
	if err == nil {
		g.boot = id
	}
	return err
}

// run is what a person types as root.
func (g *guest) run(script string) string {
	g.s.Helper()
	ctx, cancel := g.s.within(aCommand)
	defer cancel()
	out, err := g.Exec(ctx, script)
	g.s.must(err)
	return out
}

// last is run for a command with which the machine goes down, so that its end
// may not be told any more.
func (g *guest) last(script string) {
	g.s.Helper()
	g.lastWithin(aCommand, script)
}

func (g *guest) lastWithin(d time.Duration, script string) {
	g.s.Helper()
	ctx, cancel := g.s.within(d)
	defer cancel()
	var exit *ssh.ExitError
	if _, err := g.Exec(ctx, script); errors.As(err, &exit) {
		g.s.Fatal(err)
	}
}

// fails is run for what must not work; the error has to contain why.
func (g *guest) fails(script, why string) {
	g.s.Helper()
	ctx, cancel := g.s.within(aCommand)
	defer cancel()
	if out, err := g.Exec(ctx, script); err == nil || !strings.Contains(err.Error(), why) {
		g.s.Errorf("%s: %q gave %q and %v, want %q", g.Name, script, out, err, why)
	}
}

// until waits until the shell condition holds, trying about once a second.
func (g *guest) until(what, condition string) {
	g.s.Helper()
	ctx, cancel := g.s.within(aWait)
	defer cancel()
	if _, err := g.Exec(ctx, "until "+condition+"; do sleep 1; done"); err != nil {
		g.s.Fatalf("%s: wait until %s: %v", g.Name, what, err)
	}
}

// status is what `kairos status -o json` says.
type status struct {
	Status api.Status
	Nodes  []api.Node
}

func (g *guest) status() status {
	g.s.Helper()
	var v status
	g.s.must(json.Unmarshal([]byte(g.run("kairos status -o json")), &v))
	return v
}

// overlayAddress is the machine's own on the overlay.
func (g *guest) overlayAddress() string {
	g.s.Helper()
	return g.status().Status.Addresses[0].String()
}

// overlayReady waits until the overlay runs and has its interface.
func (g *guest) overlayReady() {
	g.s.Helper()
	g.until("the overlay is ready", "kairos status >/dev/null 2>&1 && ip -4 addr show kairos0 2>/dev/null | grep -q inet")
}

// meets waits until the machine is connected to that many others.
func (g *guest) meets(others int) {
	g.s.Helper()
	g.until(fmt.Sprintf("%d others are connected", others), fmt.Sprintf(`[ "$(kairos status -o json | grep -c '"connected": *true')" -ge %d ]`, others))
}

// pings sends a few packets to another machine over the overlay.
func (g *guest) pings(other *guest) {
	g.s.Helper()
	g.run("ping -n -c 3 -i 0.3 -W 5 " + other.overlayAddress())
}

// wipes resets the machine, waits until it is back in the network, and checks
// that its data is gone.
func (g *guest) wipes(reset string) {
	g.s.Helper()
	g.run("echo data >/var/lib/data; echo data >/etc/data; echo data >/home/data")
	began := time.Now()
	g.last(reset)
	g.up(began)
	g.fails("cat /var/lib/data", "No such file")
	g.fails("cat /etc/data", "No such file")
	g.fails("cat /home/data", "No such file")
	g.overlayReady()
	g.meets(1)
}

// self is who a machine is, one thing a line.
type self string

func (g *guest) self() self {
	g.s.Helper()
	st := g.status().Status
	return self(strings.Join([]string{g.run("cat /etc/machine-id"), st.ID.String(), st.Name, st.Addresses[0].String(), g.HostKey()}, "\n"))
}

// isStill checks that the machine is who it was.
func (g *guest) isStill(was self) {
	g.s.Helper()
	if now := g.self(); now != was {
		g.s.Errorf("%s was\n%s\nand is\n%s", g.Name, was, now)
	}
}

// shares says whether any of the things is the same.
func (s self) shares(other self) bool {
	a, b := strings.Fields(string(s)), strings.Fields(string(other))
	for i := range a {
		if a[i] == b[i] {
			return true
		}
	}
	return false
}

// step is a part of a story under its own name; later ones do not run after one
// that failed.
func (s *story) step(name string, f func()) {
	s.Helper()
	if s.Failed() {
		return
	}
	outer := s.T
	defer func() { s.T = outer }()
	outer.Run(name, func(t *testing.T) {
		s.T = t
		f()
	})
}
