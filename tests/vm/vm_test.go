package vm

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// helperEnv makes the test binary hold a rack until it is killed.
const helperEnv = "KAIROS_TEST_RACK"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		if err := holdRack(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func openRack(t *testing.T) (context.Context, *Rack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	root, err := run.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(ctx, root, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, r
}

// The firmware alone, which has a shell, shows that a machine runs, that its
// console works both ways, that its disk is what it was given, and what a power
// cut and a reset do.
func TestMachineRunsItsFirmware(t *testing.T) {
	ctx, r := openRack(t)
	seed, err := r.NewSeed(ctx, Seed{UserData: "#cloud-config\n# marked by the test\n", InstanceID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.NewMachine(ctx, Config{Name: "one", Disks: []Disk{{Image: seed}, {Size: 1 << 30}}, Memory: 256})
	if err != nil {
		t.Fatal(err)
	}
	shell := regexp.MustCompile("Shell> ")
	expect := func(re *regexp.Regexp) {
		t.Helper()
		if _, _, err := m.Console.Wait(ctx, re); err != nil {
			t.Fatal(err)
		}
	}
	typed := func(text string) {
		t.Helper()
		if err := m.Console.Send(text); err != nil {
			t.Fatal(err)
		}
	}
	toShell := func() {
		t.Helper()
		expect(regexp.MustCompile("any other key"))
		typed("x")
		expect(shell)
	}

	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	toShell()
	typed("type fs0:\\user-data\r")
	expect(regexp.MustCompile("marked by the test"))
	expect(shell)
	typed("echo changed > fs0:\\note\r")
	expect(shell)

	m.Kill()
	if m.Running() {
		t.Error("it runs after it was killed")
	}
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	toShell()
	typed("type fs0:\\note\r")
	expect(regexp.MustCompile("(?m)^changed"))

	if err := m.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	expect(regexp.MustCompile("BdsDxe: starting"))
	if text, err := r.Tools.Run(ctx, "mdir", "-b", "-i", seed, "::"); err != nil || strings.Contains(text, "note") {
		t.Errorf("the machine wrote to the image that it was given: %q, %v", text, err)
	}
}

func TestMachineSaysWhatIsWrongWithIt(t *testing.T) {
	ctx, r := openRack(t)
	m, err := r.NewMachine(ctx, Config{Name: "one", CPUs: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(ctx); err == nil || !strings.Contains(err.Error(), "SMP") || m.Running() {
		t.Errorf("got %v", err)
	}
}

// A LAN is reached by the test, and reaches neither the host's network nor another LAN.
func TestLANIsAlone(t *testing.T) {
	ctx, r := openRack(t)
	var lans []*LAN
	for range 2 {
		l, err := r.NewLAN(ctx)
		if err != nil {
			t.Fatal(err)
		}
		lans = append(lans, l)
	}
	server, err := lans[0].Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	at := netip.AddrPortFrom(lans[0].Addr(), 80)
	conn, err := lans[0].Dial(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if conn, err := lans[1].Dial(ctx, at); err == nil {
		conn.Close()
		t.Error("one LAN is reached from another")
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil || slices.ContainsFunc(addrs, func(a net.Addr) bool { return strings.HasPrefix(a.String(), at.Addr().String()+"/") }) {
		t.Errorf("the host has the LAN's address: %v, %v", addrs, err)
	}
	if routes, err := lans[0].Run(ctx, "ip", "route"); err != nil || strings.Contains(routes, "default") {
		t.Errorf("routes: %v\n%s", err, routes)
	}
}

// holdRack opens a rack with a LAN and a running machine, tells their processes
// and waits to be killed.
func holdRack() error {
	ctx := context.Background()
	root, err := run.RepoRoot()
	if err != nil {
		return err
	}
	r, err := Open(ctx, root, os.Stderr)
	if err != nil {
		return err
	}
	l, err := r.NewLAN(ctx)
	if err != nil {
		return err
	}
	m, err := r.NewMachine(ctx, Config{Name: "one", LAN: l, Memory: 256})
	if err != nil {
		return err
	}
	if err := m.Start(ctx); err != nil {
		return err
	}
	fmt.Println(r.Dir(), l.pid, m.process.Pid)
	select {}
}

// Even a test that is killed leaves no process and no namespace, and the next one
// removes its files.
func TestNothingOutlivesAKilledTest(t *testing.T) {
	ctx, _ := openRack(t) // the toolbox is made by now
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var lan, machine int
	if _, err := fmt.Fscan(bufio.NewReader(out), &dir, &lan, &machine); err != nil {
		t.Fatalf("the helper did not come up: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for _, pid := range []int{lan, machine} {
		for alive(pid) {
			if ctx.Err() != nil {
				t.Fatalf("process %d lives on", pid)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	openRack(t)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", filepath.Base(dir), err)
	}
}

// alive is false for a zombie, which only waits for somebody to take note.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}
