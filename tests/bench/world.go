package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Addresses of the two sides on the underlay.
var underlayAddr = [2]netip.Addr{netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")}

const underlayBits = 24

// nic is the underlay's interface, on both sides.
const nic = "veth0"

// hold is the program that keeps the namespaces of one side. It ends with the
// bench, whatever ends that, because then its standard input does; and with it
// goes all that was made there. /run is its own, so that sockets and state of the
// programs are gone as well, and never those of the host. arp_ignore: an address of an
// overlay must not be answered for by the underlay's interface.
const hold = `set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/bench
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
ip link set lo up
echo ready
exec cat`

// underlay joins the two sides of a world: what comes before any network of its own.
type underlay func(context.Context, *world) error

// world is two sides, each in namespaces of its own, and what runs there.
type world struct {
	sides    [2]*side
	cleanups []func() error // called when the sides are still there
}

// side is one of the two machines.
type side struct {
	name   string
	addr   netip.Addr // on the underlay
	holder *process
	stdin  io.Closer

	started []*process
}

// process is a program that the bench started. What it wrote is for error messages.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdout output
	stderr output
	ended  chan struct{} // closed when it ended
	err    error         // how; to be read after ended
}

// output keeps what a program wrote.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// newWorld makes the two sides and joins them.
func newWorld(ctx context.Context, join underlay) (*world, error) {
	w := &world{}
	for i := range w.sides {
		s, err := newSide(ctx, string(rune('a'+i)), underlayAddr[i])
		if err != nil {
			w.close()
			return nil, err
		}
		w.sides[i] = s
	}
	if err := join(ctx, w); err != nil {
		w.close()
		return nil, fmt.Errorf("join the two sides: %w", err)
	}
	return w, nil
}

// veth joins the sides by one cable.
func veth(ctx context.Context, w *world) error {
	a, b := w.sides[0], w.sides[1]
	if err := a.exec(ctx, "ip", "link", "add", nic, "mtu", "1500", "type", "veth", "peer", "name", nic, "mtu", "1500", "netns", strconv.Itoa(b.pid())); err != nil {
		return err
	}
	for _, s := range w.sides {
		if err := s.configure(ctx, nic, netip.PrefixFrom(s.addr, underlayBits)); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything that runs in the world; the kernel then removes the rest.
func (w *world) close() {
	for _, f := range w.cleanups {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, "cannot clean up:", err)
		}
	}
	for _, s := range w.sides {
		if s != nil {
			s.close()
		}
	}
}

func newSide(ctx context.Context, name string, addr netip.Addr) (*side, error) {
	s := &side{name: name, addr: addr}
	p := newProcess(name, "unshare", "--net", "--mount", "--", "/bin/sh", "-c", hold)
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make side %s: %w", name, err)
	}
	p.cmd.Stdout = nil
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make side %s: %w", name, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("make side %s: %w", name, err)
	}
	s.holder, s.stdin = p, stdin
	line, err := bufio.NewReader(stdout).ReadString('\n')
	go p.wait()
	if err != nil || line != "ready\n" {
		s.close()
		return nil, fmt.Errorf("make side %s: %w: %s", name, errors.Join(err, context.Cause(ctx)), p.stderr.String())
	}
	return s, nil
}

func (s *side) pid() int { return s.holder.pid() }

// path is how the host reaches a file that is at p on the side.
func (s *side) path(p string) string { return filepath.Join(fmt.Sprintf("/proc/%d/root", s.pid()), p) }

// write puts a file into the side's own directory and returns its path there.
func (s *side) write(name, text string) (string, error) {
	p := filepath.Join("/run/bench", name)
	return p, os.WriteFile(s.path(p), []byte(text), 0o600)
}

// enter is the command line that runs args on the side. nsenter becomes the program: it
// has the PID that is started.
func (s *side) enter(args ...string) []string {
	return append([]string{"nsenter", "-t", strconv.Itoa(s.pid()), "-n", "-m", "--"}, args...)
}

// exec runs a command on the side to its end.
func (s *side) exec(ctx context.Context, args ...string) error {
	_, err := s.output(ctx, args...)
	return err
}

// output runs a command on the side and returns what it wrote.
func (s *side) output(ctx context.Context, args ...string) (string, error) {
	p, err := s.start(args...)
	if err != nil {
		return "", err
	}
	return p.result(ctx)
}

// configure gives an interface its address and brings it up.
func (s *side) configure(ctx context.Context, dev string, addr netip.Prefix) error {
	if err := s.exec(ctx, "ip", "addr", "add", addr.String(), "dev", dev); err != nil {
		return err
	}
	return s.exec(ctx, "ip", "link", "set", dev, "up")
}

// start starts a program on the side. It ends with the world at the latest.
func (s *side) start(args ...string) (*process, error) {
	enter := s.enter(args...)
	p := newProcess(filepath.Base(args[0]), enter...)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go p.wait()
	s.started = append(s.started, p)
	return p, nil
}

func (s *side) close() {
	for i := len(s.started) - 1; i >= 0; i-- {
		s.started[i].stop()
	}
	s.stdin.Close() // the holder waits for nothing else
	s.holder.stop()
}

func newProcess(name string, args ...string) *process {
	p := &process{name: name, cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "LOG_LEVEL=error"}
	p.cmd.Dir = "/"
	// A group of its own: Ctrl-C is for the bench, which then ends the rest in order. If
	// that cannot be, the kernel does it; see main for the thread.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return p
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.ended)
}

// result waits until the process has ended by itself, and returns what it wrote.
func (p *process) result(ctx context.Context) (string, error) {
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.stop()
		return "", p.complain("was ended: " + context.Cause(ctx).Error())
	}
	if p.err != nil {
		return "", p.complain(p.err.Error())
	}
	return p.stdout.String(), nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// over says whether the process ended.
func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// stop ends the process, if it has not yet, and waits until it has.
func (p *process) stop() {
	// Signals to a process that ended are errors, and nothing else is to be done about them.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// complain is an error about the process with the end of what it wrote.
func (p *process) complain(what string) error {
	text := strings.TrimSpace(p.stderr.String() + "\n" + p.stdout.String())
	if len(text) > 1000 {
		text = "..." + text[len(text)-1000:]
	}
	return fmt.Errorf("%s %s: %s", p.name, what, text)
}

// await repeats f until it returns nil, for at most d.
func await(ctx context.Context, d time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("waited %s: %w", d, err)
		}
	}
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
