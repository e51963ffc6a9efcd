package tun

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/offload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inNamespace runs f on a thread in a network namespace of its own, which ends
// with the thread. Only root may: elsewhere the test says that it did not run.
func inNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root for a network namespace and a TUN device")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		f(t)
	}()
	<-done
}

// ip runs ip(8) in the namespace of the calling thread.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func open(t *testing.T, persist bool, addrs ...string) *Interface {
	t.Helper()
	cfg := Config{Name: "kt0", MTU: 1420, Persist: persist}
	for _, a := range addrs {
		cfg.Addrs = append(cfg.Addrs, pfx(a))
	}
	ifc, err := Open(cfg)
	if err != nil {
		t.Errorf("open: %v", err)
		runtime.Goexit()
	}
	return ifc
}

func mustContain(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

func TestPacketsPassBothWays(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		ifc := open(t, false, "10.7.0.1/16", "fd00:7::1/64")
		defer ifc.Close()
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 7, 0, 1), Port: 4000})
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		const count = 20
		for i := range count {
			if _, err := conn.WriteToUDP([]byte{byte(i)}, &net.UDPAddr{IP: net.IPv4(10, 7, 0, 2), Port: 5000}); err != nil {
				t.Error(err)
				return
			}
		}
		buf := make([]byte, offload.BufferSize)
		for seen := 0; seen < count; {
			p, err := ifc.Read(buf)
			if err == nil && len(p.Data) == 0 {
				err = ifc.Wait(false)
			}
			if err != nil {
				t.Error(err)
				return
			}
			pkt := p.Data
			if len(pkt) != 29 || pkt[0]>>4 != 4 {
				continue
			}
			if pkt[28] != byte(seen) {
				t.Errorf("packet %d has payload %d", seen, pkt[28])
			}
			seen++
			echo(t, ifc, p)
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := conn.ReadFromUDP(buf)
		if err != nil || n != 1 || from.String() != "10.7.0.2:5000" {
			t.Errorf("echo: %d bytes from %v, error %v", n, from, err)
		}
	})
}

// echo writes the UDP packet back with its ends swapped.
func echo(t *testing.T, ifc *Interface, p offload.Packet) {
	t.Helper()
	back := slices.Clone(p.Data)
	copy(back[12:16], p.Data[16:20])
	copy(back[16:20], p.Data[12:16])
	copy(back[20:22], p.Data[22:24])
	copy(back[22:24], p.Data[20:22])
	if err := ifc.Write(offload.Header{}, [][]byte{{0xf0, 1, 2, 3}}); err == nil {
		t.Error("the kernel takes what is no packet")
	}
	var m offload.Merger
	m.Add(offload.Packet{Data: back, Shape: p.Shape})
	if err := ifc.Write(m.Take()); err != nil {
		t.Errorf("write: %v", err)
	}
}

// drain reads until that fails.
func drain(ifc *Interface) error {
	buf := make([]byte, offload.BufferSize)
	for {
		p, err := ifc.Read(buf)
		if err == nil && len(p.Data) == 0 {
			err = ifc.Wait(false)
		}
		if err != nil {
			return err
		}
	}
}

func TestCloseUnblocksReadAndRemoves(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		ifc := open(t, false, "10.7.0.1/16")
		failed := make(chan error)
		go func() {
			failed <- drain(ifc)
		}()
		if err := ifc.Close(); err != nil {
			t.Error(err)
		}
		select {
		case err := <-failed:
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("read after close: %v, want os.ErrClosed", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("close does not unblock read")
		}
		if err := ifc.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if out, err := exec.Command("ip", "link", "show", "kt0").CombinedOutput(); err == nil {
			t.Errorf("the interface is still there: %s", out)
		}
		if err := ifc.SetAddrs(nil); !errors.Is(err, os.ErrClosed) {
			t.Errorf("SetAddrs after close: %v", err)
		}
	})
}

func TestDeletedInterfaceFailsRead(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		ifc := open(t, false, "10.7.0.1/16")
		defer ifc.Close()
		failed := make(chan error, 1)
		go func() {
			failed <- drain(ifc)
		}()
		ip(t, "link", "del", "kt0")
		select {
		case <-failed:
		case <-time.After(5 * time.Second):
			t.Error("read goes on waiting on a deleted interface")
		}
		if err := ifc.Write(offload.Header{}, [][]byte{make([]byte, 20)}); !errors.Is(err, unix.EBADFD) {
			t.Errorf("write to a deleted interface: %v", err)
		}
	})
}

func TestPersistentInterfaceIsTakenOver(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		first := open(t, true, "10.7.0.1/16", "fd00:7::1/64")
		if err := first.SetRoutes([]Route{{pfx("10.42.0.0/16"), netip.MustParseAddr("10.7.0.1")}}); err != nil {
			t.Error(err)
		}
		index := ip(t, "-o", "link", "show", "kt0")
		index = index[:strings.Index(index, ":")]
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		mustContain(t, ip(t, "addr", "show", "kt0"), "10.7.0.1/32", "fd00:7::1/128")
		mustContain(t, ip(t, "route"), "10.7.0.0/16 dev kt0", "10.42.0.0/16 dev kt0")
		mustContain(t, ip(t, "-6", "route"), "fd00:7::/64 dev kt0")

		if _, err := Open(Config{Name: "kt0", MTU: 1420}); !errors.Is(err, ErrNameTaken) {
			t.Errorf("a non-persistent open takes over the service's interface: %v", err)
		}
		// As the unit's user: not root, but with the one capability.
		second := openAs(t, 12345, "10.7.0.1/16", "fd00:7::1/64")
		if second == nil {
			return
		}
		defer second.Close()
		again := ip(t, "-o", "link", "show", "kt0")
		mustContain(t, again, index+":", "LOWER_UP")
		mustContain(t, ip(t, "route"), "10.42.0.0/16 dev kt0") // SetRoutes was not called yet
		if err := second.SetRoutes(nil); err != nil {
			t.Error(err)
		}
		if out := ip(t, "route"); strings.Contains(out, "10.42") {
			t.Errorf("route of the former run is still there:\n%s", out)
		}
	})
}

// openAs opens the persistent interface as user uid with CAP_NET_ADMIN, and the
// right to open /dev/net/tun, which udev gives to everybody but a test machine may not.
func openAs(t *testing.T, uid int, addrs ...string) *Interface {
	t.Helper()
	// Raw system calls change this thread alone, which dies with the test.
	if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0); e != 0 {
		t.Errorf("keepcaps: %v", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
		t.Errorf("setresuid: %v", e)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	caps[0].Effective = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_DAC_OVERRIDE
	caps[0].Permitted = caps[0].Effective
	if err := unix.Capset(&hdr, &caps[0]); err != nil {
		t.Errorf("capset: %v", err)
	}
	return open(t, true, addrs...)
}

func TestNameTaken(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		other := open(t, true)
		if _, err := Open(Config{Name: "kt0", MTU: 1420, Persist: true}); !errors.Is(err, ErrNameTaken) {
			t.Errorf("a second open of a used interface: %v", err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		ip(t, "link", "del", "kt0")
		ip(t, "tuntap", "add", "mode", "tap", "name", "kt0")
		if _, err := Open(Config{Name: "kt0", MTU: 1420, Persist: true}); !errors.Is(err, ErrNameTaken) {
			t.Errorf("open over a TAP: %v", err)
		}
		ip(t, "link", "del", "kt0")
		ip(t, "link", "add", "kt0", "type", "bridge")
		_, err := Open(Config{Name: "kt0", MTU: 1420, Persist: true})
		if !errors.Is(err, ErrNameTaken) {
			t.Errorf("open over a bridge: %v", err)
		} else {
			mustContain(t, err.Error(), "bridge interface", "--interface")
		}
		mustContain(t, ip(t, "-d", "link", "show", "kt0"), "bridge")
	})
}

func TestReconcile(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		ifc := open(t, false, "10.7.0.1/16", "fd00:7::1/64")
		defer ifc.Close()
		if a := ip(t, "addr", "show", "kt0"); strings.Contains(a, "fe80") || strings.Contains(a, "tentative") {
			t.Errorf("unwanted address:\n%s", a)
		}
		ip(t, "route", "add", "192.0.2.0/24", "dev", "kt0") // a person's own
		old, moved := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.9")
		check(t, ifc.SetRoutes([]Route{{pfx("10.42.0.0/16"), old}, {pfx("10.43.0.0/16"), old}}))
		// The address moves, as after a conflict: same network, and the routes follow.
		check(t, ifc.SetAddrs([]netip.Prefix{pfx("10.7.0.9/16"), pfx("fd00:7::1/64")}))
		check(t, ifc.SetRoutes([]Route{{pfx("10.42.0.0/16"), moved}, {pfx("fd00:42::/64"), netip.MustParseAddr("fd00:7::1")}}))
		if a := ip(t, "addr", "show", "kt0"); strings.Contains(a, "10.7.0.1/") || !strings.Contains(a, "10.7.0.9/32") {
			t.Errorf("addresses:\n%s", a)
		}
		r := ip(t, "route")
		mustContain(t, r, "10.7.0.0/16 dev kt0 proto 175 scope link src 10.7.0.9", "10.42.0.0/16 dev kt0 proto 176 scope link src 10.7.0.9", "192.0.2.0/24")
		if strings.Contains(r, "10.43") {
			t.Errorf("10.43.0.0/16 should be gone:\n%s", r)
		}
		mustContain(t, ip(t, "-6", "route"), "fd00:42::/64 dev kt0 proto 176 src fd00:7::1")
		updates := watchRoutes(t)
		check(t, ifc.SetAddrs([]netip.Prefix{pfx("10.7.0.9/16"), pfx("fd00:7::1/64")}))
		check(t, ifc.SetRoutes([]Route{{pfx("10.42.0.0/16"), moved}, {pfx("fd00:42::/64"), netip.MustParseAddr("fd00:7::1")}}))
		if n := updates(); n != 0 {
			t.Errorf("%d changes in the kernel by what changes nothing", n)
		}
	})
}

// watchRoutes returns a function that tells how many route changes the
// namespace saw since: 0, or at least one.
func watchRoutes(t *testing.T) func() int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	check(t, err)
	groups := uint32(unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	check(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}))
	return func() int {
		defer unix.Close(fd)
		n, _, err := unix.Recvfrom(fd, make([]byte, 1<<16), 0)
		if err == unix.EAGAIN {
			return 0
		}
		check(t, err)
		return n
	}
}

func TestNetworkRoutedElsewhere(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		ip(t, "link", "add", "lan0", "type", "bridge")
		ip(t, "link", "set", "lan0", "up")
		ip(t, "route", "add", "10.7.0.0/16", "dev", "lan0")
		_, err := Open(Config{Name: "kt0", MTU: 1420, Addrs: []netip.Prefix{pfx("10.7.0.1/16")}})
		if !errors.Is(err, ErrRouteTaken) {
			t.Errorf("open: %v, want ErrRouteTaken", err)
		}
		mustContain(t, ip(t, "route"), "10.7.0.0/16 dev lan0")
	})
}

func TestHostWithoutIPv6(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		check(t, err)
		defer nl.Close()
		// The file belongs to the namespace of the thread that opens it.
		out, err := exec.Command("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").CombinedOutput()
		if err != nil {
			t.Errorf("switch IPv6 off: %v: %s", err, out)
			return
		}
		ifc := open(t, false, "10.7.0.1/16", "fd00:7::1/64")
		defer ifc.Close()
		if ifc.IPv6() {
			t.Error("IPv6 should be found missing")
		}
		check(t, ifc.SetRoutes([]Route{{Prefix: pfx("fd00:42::/64")}, {Prefix: pfx("10.42.0.0/16")}}))
		mustContain(t, ip(t, "route"), "10.7.0.0/16", "10.42.0.0/16")
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestSetAgainAfterDown is fault T11: an interface that somebody set down says so at
// once, and SetAddrs and SetRoutes bring back all that the kernel dropped with it.
func TestSetAgainAfterDown(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		addrs := []netip.Prefix{pfx("10.7.0.1/16"), pfx("fd00:7::1/64")}
		routes := []Route{{Prefix: pfx("10.42.0.0/16"), Src: addrs[0].Addr()}}
		ifc := open(t, false, "10.7.0.1/16", "fd00:7::1/64")
		defer ifc.Close()
		if err := ifc.SetRoutes(routes); err != nil {
			t.Error(err)
		}
		before := ip(t, "addr", "show", "kt0") + ip(t, "route") + ip(t, "-6", "route", "show", "dev", "kt0")
		quiet(t, ifc)
		ip(t, "link", "set", "kt0", "down")
		news(t, ifc)
		if err := errors.Join(ifc.SetAddrs(addrs), ifc.SetRoutes(routes)); err != nil {
			t.Error(err)
		}
		after := ip(t, "addr", "show", "kt0") + ip(t, "route") + ip(t, "-6", "route", "show", "dev", "kt0")
		if before != after {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// quiet waits until the kernel has no more news that this test has made.
func quiet(t *testing.T, ifc *Interface) {
	t.Helper()
	for {
		select {
		case <-ifc.Changed():
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

func news(t *testing.T, ifc *Interface) {
	t.Helper()
	select {
	case <-ifc.Changed():
	case <-time.After(10 * time.Second):
		t.Error("the change was not told")
	}
}

// TestShadows is fault T10: a route of the host inside the overlay's network is named,
// and its coming and going is told; other routes are not.
func TestShadows(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		ifc := open(t, false, "10.7.0.1/16")
		defer ifc.Close()
		ip(t, "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
		ip(t, "addr", "add", "192.0.2.1/24", "dev", "lan0")
		ip(t, "link", "set", "lan0", "up")
		ip(t, "link", "set", "lan1", "up")
		networks := []netip.Prefix{pfx("10.7.0.0/16")}
		check := func(want ...Shadow) {
			t.Helper()
			if got, err := ifc.Shadows(networks); err != nil || !slices.Equal(got, want) {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
		}
		check()
		quiet(t, ifc)
		ip(t, "addr", "add", "10.7.9.1/24", "dev", "lan0")
		news(t, ifc)
		check(Shadow{Prefix: pfx("10.7.9.0/24"), Interface: "lan0"})
		quiet(t, ifc)
		ip(t, "addr", "del", "10.7.9.1/24", "dev", "lan0")
		news(t, ifc)
		check()
	})
}

// TestMaxSegments: what TCP hands over at once leaves with one system call.
func TestMaxSegments(t *testing.T) {
	for mtu, want := range map[int]int{1280: 49, 1420: 44, 9000: 7, 500: 64} {
		if got := maxSegments(mtu); got != want {
			t.Errorf("mtu %d: %d segments instead of %d", mtu, got, want)
		}
	}
	inNamespace(t, func(t *testing.T) {
		ifc := open(t, false)
		defer ifc.Close()
		mustContain(t, ip(t, "-d", "link", "show", "kt0"), "gso_max_segs 44 ")
	})
}
