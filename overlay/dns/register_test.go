package dns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

func TestCallSignatures(t *testing.T) {
	want := map[string]string{ // behind the index, from org.freedesktop.resolve1(5)
		"SetLinkDNSEx":        "a(iayqs)",
		"SetLinkDomains":      "a(sb)",
		"SetLinkDefaultRoute": "b",
		"SetLinkDNSSEC":       "s",
		"SetLinkDNSOverTLS":   "s",
		"SetLinkLLMNR":        "s",
		"SetLinkMulticastDNS": "s",
	}
	for _, c := range linkCalls(netip.MustParseAddrPort("127.0.0.1:8053"), Domain) {
		if got := dbus.SignatureOf(c.args...).String(); got != want[c.method] {
			t.Errorf("%s takes %s, is called with %s", c.method, want[c.method], got)
		}
	}
	v6 := linkCalls(netip.MustParseAddrPort("[::1]:53"), Domain)[0].args[0].([]linkServer)[0]
	if v6.Family != 10 || len(v6.Address) != 16 || v6.Port != 53 {
		t.Errorf("IPv6 server: %+v", v6)
	}
}

// fakeResolved records what it is told; deny makes it refuse as polkit does.
type fakeResolved struct {
	calls chan string
	deny  bool
}

func (f *fakeResolved) record(format string, args ...any) *dbus.Error {
	if f.deny {
		return dbus.NewError("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", []any{"no"})
	}
	f.calls <- fmt.Sprintf(format, args...)
	return nil
}

func (f *fakeResolved) SetLinkDNSEx(index int32, servers []linkServer) *dbus.Error {
	return f.record("dns %d %v", index, servers)
}

func (f *fakeResolved) SetLinkDomains(index int32, domains []linkDomain) *dbus.Error {
	return f.record("domains %d %v", index, domains)
}

func (f *fakeResolved) SetLinkDefaultRoute(index int32, on bool) *dbus.Error {
	return f.record("default %d %v", index, on)
}

func (f *fakeResolved) RevertLink(index int32) *dbus.Error { return f.record("revert %d", index) }

func (f *fakeResolved) want(t *testing.T, calls ...string) {
	t.Helper()
	for _, want := range calls {
		select {
		case got := <-f.calls:
			if got != want {
				t.Errorf("call %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no call, want %q", want)
		}
	}
}

// startBus runs a bus of the test's own and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("NOT RUN: needs dbus-daemon (Debian package dbus-daemon)")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	writeFile(t, config, `<busconfig><type>custom</type><listen>unix:path=`+dir+`/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`)
	cmd := exec.Command(program, "--config-file="+config, "--nofork", "--print-address")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(t, err)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("start bus: %v", err)
	}
	return strings.TrimSpace(address)
}

// startResolved puts the fake on the bus; the returned function takes it off.
func startResolved(t *testing.T, bus string, f *fakeResolved) (stop func()) {
	t.Helper()
	conn, err := dbus.Connect(bus)
	if err != nil {
		t.Fatal(err)
	}
	check(t, conn.Export(f, resolvedPath, strings.TrimSuffix(resolvedManager, ".")))
	if _, err := conn.RequestName(resolvedName, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	return func() { check(t, conn.Close()) }
}

func registerConfig(t *testing.T, bus string) RegisterConfig {
	t.Helper()
	cfg := RegisterConfig{
		Interface: "lo",
		Server:    netip.MustParseAddrPort("127.0.0.1:8053"),
		Domain:    Domain,
		Bus:       bus,
		Hosts:     filepath.Join(t.TempDir(), "hosts"),
	}
	writeFile(t, cfg.Hosts, plain+"\n")
	return cfg
}

func TestRegisterWithResolved(t *testing.T) {
	bus := startBus(t)
	fake := &fakeResolved{calls: make(chan string, 100)}
	stop := startResolved(t, bus, fake)
	cfg := registerConfig(t, bus)
	writeFile(t, cfg.Hosts, plain+"\n# kairos lo begin\n10.7.0.9 old\n# kairos lo end\n") // of a run that was killed

	reg, err := Register(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if reg.Via() != ViaResolved {
		t.Errorf("registered via %s", reg.Via())
	}
	set := []string{"dns 1 [{2 [127 0 0 1] 8053 }]", "domains 1 [{kairos.internal false}]", "default 1 false"}
	fake.want(t, set...)
	check(t, reg.Update(testZone()))
	if got := readFile(t, cfg.Hosts); got != plain+"\n" {
		t.Errorf("hosts file:\n%s", got)
	}
	// A restart of resolved: it has forgotten everything, and is told again.
	stop()
	stop = startResolved(t, bus, fake)
	fake.want(t, set...)
	check(t, reg.Close())
	check(t, reg.Close())
	fake.want(t, "revert 1")
	stop()
}

func TestRegisterByHosts(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T) (bus string){
		"no bus":      func(t *testing.T) string { return "unix:path=" + t.TempDir() + "/none" },
		"no resolved": startBus,
		"not permitted": func(t *testing.T) string {
			bus := startBus(t)
			t.Cleanup(startResolved(t, bus, &fakeResolved{deny: true}))
			return bus
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := registerConfig(t, prepare(t))
			reg, err := Register(context.Background(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if reg.Via() != ViaHosts {
				t.Errorf("registered via %s", reg.Via())
			}
			check(t, reg.Update(testZone()))
			if got := readFile(t, cfg.Hosts); !strings.Contains(got, "10.7.0.2 beta.kairos.internal beta\n") {
				t.Errorf("hosts file:\n%s", got)
			}
			check(t, reg.Close())
			check(t, reg.Update(testZone())) // a late update leaves nothing behind
			if got := readFile(t, cfg.Hosts); got != plain+"\n" {
				t.Errorf("left behind:\n%s", got)
			}
		})
	}
}

func TestRegisterNeitherWay(t *testing.T) {
	for name, c := range map[string]struct {
		bus  func(t *testing.T) string
		file func(t *testing.T, path string)
		want string
	}{
		"no file": {nil, func(t *testing.T, path string) { check(t, os.Remove(path)) }, "there is no systemd-resolved to ask, and there is no "},
		"read-only": {nil, func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("NOT RUN: needs root for a bind mount")
			}
			check(t, unix.Mount(path, path, "", unix.MS_BIND, ""))
			t.Cleanup(func() { check(t, unix.Unmount(path, unix.MNT_DETACH)) })
			check(t, unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		}, "there is no systemd-resolved to ask, and PATH is read-only"},
		"not permitted": {func(t *testing.T) string {
			bus := startBus(t)
			t.Cleanup(startResolved(t, bus, &fakeResolved{deny: true}))
			return bus
		}, func(t *testing.T, path string) { check(t, os.Remove(path)) }, "systemd-resolved does not take them from this user, and there is no "},
	} {
		t.Run(name, func(t *testing.T) {
			bus := "unix:path=/nonexistent/bus"
			if c.bus != nil {
				bus = c.bus(t)
			}
			cfg := registerConfig(t, bus)
			c.file(t, cfg.Hosts)
			_, err := Register(context.Background(), cfg)
			var e *UnavailableError
			want := "names of the network do not resolve on this machine: " + strings.ReplaceAll(c.want, "PATH", cfg.Hosts)
			if errors.As(err, &e) && e.Denied() != (name == "not permitted") {
				t.Errorf("denied: %v", e.Denied())
			}
			if !errors.As(err, &e) || !strings.HasPrefix(e.Error(), want) || strings.Contains(e.Error(), "\n") {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// Somebody else may write the file too: an update puts the block back.
func TestUpdatePutsTheBlockBack(t *testing.T) {
	cfg := registerConfig(t, "unix:path=/nonexistent/bus")
	reg, err := Register(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		check(t, reg.Update(testZone()))
		if got := readFile(t, cfg.Hosts); !strings.Contains(got, "beta.kairos.internal") {
			t.Errorf("hosts file:\n%s", got)
		}
		writeFile(t, cfg.Hosts, plain+"\n")
	}
	check(t, reg.Close())
}

// What a bridge left that was killed goes at the next start, also if that one has
// another interface (fault T9). What belongs to an interface that is there stays.
func TestLeftoversOfDeadInterfaces(t *testing.T) {
	block := func(iface string) string {
		return "# kairos " + iface + " begin\n10.7.0.9 old\n# kairos " + iface + " end\n"
	}
	cfg := registerConfig(t, "unix:path=/nonexistent/bus")
	writeFile(t, cfg.Hosts, plain+"\n"+block("gone0")+block("lo")+block("gone1")+"# kairos gone2 begin\n10.1.1.1 printer\n")
	cfg.Interface = "other"
	reg, err := Register(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := readFile(t, cfg.Hosts), plain+"\n"+block("lo")+"10.1.1.1 printer\n"; got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	check(t, reg.Close())
}
