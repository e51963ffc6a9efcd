package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The addresses of every LAN. LANs do not know each other, so all can have the same.
var (
	lanPrefix = netip.MustParsePrefix("172.31.0.0/24")
	lanOwn    = netip.MustParseAddr("172.31.0.1")
)

const maxPorts = 64

// LAN is one Ethernet segment with DHCP and no way out, in a network namespace
// of its own. Its methods are for one goroutine at a time, apart from Dial.
type LAN struct {
	tools *Toolbox
	pid   int // of the process that owns the namespaces
	stop  context.CancelFunc
	off   chan struct{} // closed when it is over
	err   error         // how it ended, once off is closed
	ports int

	programs []program // of Start
}

// startLAN is the life of the namespaces' first process: it lays the network
// out, says so, and stays beside the DHCP server, which would not die with this
// test by itself: it changes its credentials, and the kernel then forgets.
const startLAN = `set -e
ip link set lo up
ip link add lan type bridge forward_delay 0 mcast_snooping 0
ip addr add "$1" dev lan
ip link set lan up
echo up
shift
dnsmasq "$@" &
wait`

// newLAN starts a LAN whose files are in dir.
func newLAN(ctx context.Context, tools *Toolbox, dir string) (*LAN, error) {
	server := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=lan", "--log-facility=" + filepath.Join(dir, "dhcp.log"),
		"--pid-file", "--dhcp-leasefile=" + filepath.Join(dir, "leases"), "--dhcp-authoritative", "--dhcp-option=3", "--dhcp-option=6",
		// Empty options: no router, no name server.
		fmt.Sprintf("--dhcp-range=%s,static", lanPrefix.Addr())}
	for n := 1; n <= maxPorts; n++ {
		server = append(server, fmt.Sprintf("--dhcp-host=%s,%s", portMAC(n), portAddr(n)))
	}
	life := append([]string{"/bin/sh", "-c", startLAN, "lan", netip.PrefixFrom(lanOwn, lanPrefix.Bits()).String()}, server...)
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--net", "--pid", "--fork", "--kill-child"}, tools.inside(life...)...)...)
	said, out := io.Pipe()
	var errOut strings.Builder
	cmd.Stdout, cmd.Stderr = out, &errOut
	ended, err := startTied(cmd)
	if err != nil {
		stop()
		return nil, fmt.Errorf("start a LAN: %w", err)
	}
	l := &LAN{tools: tools, pid: cmd.Process.Pid, stop: stop, off: make(chan struct{})}
	go func() {
		l.err = <-ended // with the last of its processes: all hold stdout
		_ = out.Close()
		close(l.off)
	}()
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || line != "up\n" {
		l.close()
		return nil, fmt.Errorf("start a LAN: it ended with %v: %s", l.err, strings.TrimSpace(errOut.String()))
	}
	return l, nil
}

// close ends the LAN. Machines in it lose their network.
func (l *LAN) close() {
	for _, p := range l.programs {
		_ = p.process.Kill() // it may have ended by itself
		<-p.ended
	}
	l.stop()
	<-l.off
}

// Addr is where the test itself is in the LAN: see Listen.
func (l *LAN) Addr() netip.Addr { return lanOwn }

func portAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{172, 31, 0, byte(10 + n)}) }
func portMAC(n int) string      { return fmt.Sprintf("52:54:00:31:00:%02x", n) }
func portName(n int) string     { return "tap" + strconv.Itoa(n) }

// within is the command line that runs args in the LAN's namespace.
func (l *LAN) within(args ...string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", l.pid), "--"}, args...)
}

// addPort makes a socket for one more machine's cable and gives its number.
func (l *LAN) addPort(ctx context.Context) (int, error) {
	if l.ports == maxPorts {
		return 0, errors.New("plug in a machine: the LAN is full")
	}
	l.ports++
	name := portName(l.ports)
	for _, words := range []string{"tuntap add " + name + " mode tap", "link set " + name + " master lan up"} {
		if _, err := l.Run(ctx, append([]string{"ip"}, strings.Fields(words)...)...); err != nil {
			return 0, fmt.Errorf("plug in a machine: %w", err)
		}
	}
	return l.ports, nil
}

// Run runs a command where the test is in the LAN.
func (l *LAN) Run(ctx context.Context, args ...string) (string, error) {
	line := l.within(args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Start runs a program of this host where the test is in the LAN, until the LAN
// ends. What it writes goes to out. A program that ends by itself is not told of.
func (l *LAN) Start(out io.Writer, args ...string) error {
	line := l.within(args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	ended, err := startTied(cmd)
	if err != nil {
		return fmt.Errorf("start %s in the LAN: %w", args[0], err)
	}
	l.programs = append(l.programs, program{cmd.Process, ended})
	return nil
}

// program is one that runs in the LAN.
type program struct {
	process *os.Process
	ended   <-chan error
}

// Listen serves in the LAN, at Addr and the given TCP port: a registry or a web
// server for the machines.
func (l *LAN) Listen(port int) (listener net.Listener, err error) {
	err = l.do(func() error {
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(lanOwn, uint16(port)).String())
		return err
	})
	return listener, err
}

// Dial connects to a TCP port of a machine.
func (l *LAN) Dial(ctx context.Context, to netip.AddrPort) (conn net.Conn, err error) {
	err = l.do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
		return err
	})
	return conn, err
}

// do runs f on a thread that is in the LAN's namespace: a socket belongs to the
// namespace in which it was made. The thread is not used again.
func (l *LAN) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- l.inNamespace(f)
	}()
	return <-done
}

func (l *LAN) inNamespace(f func() error) error {
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", l.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("enter the LAN: %w", err)
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the LAN: %w", err)
	}
	return f()
}
