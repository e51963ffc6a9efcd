package wan_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/labtest"
	"github.com/kairos-io/kairos/tests/lab/wan"
)

// holdEnv makes the test binary hold a link between the namespaces of two processes
// until it is killed.
const holdEnv = "KAIROS_TEST_WAN"

func TestMain(m *testing.M) {
	if pids := strings.Fields(os.Getenv(holdEnv)); len(pids) == 2 {
		a, _ := strconv.Atoi(pids[0])
		b, _ := strconv.Atoi(pids[1])
		if _, err := wan.Start(context.Background(), ends(a, b)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("up")
		select {}
	}
	os.Exit(m.Run())
}

const addrA, addrB = "10.77.0.1", "10.77.0.2"

func ends(a, b int) wan.Config {
	return wan.Config{
		A: wan.End{Netns: wan.NetnsOf(a), Addrs: []netip.Prefix{netip.MustParsePrefix(addrA + "/24"), netip.MustParsePrefix("fd77::1/64")}},
		B: wan.End{Netns: wan.NetnsOf(b), Addrs: []netip.Prefix{netip.MustParsePrefix(addrB + "/24"), netip.MustParsePrefix("fd77::2/64")}},
	}
}

// two is a lab of two machines, and what joins them.
type two struct {
	*testing.T
	ctx  context.Context
	a, b *lab.Machine
}

func newTwo(t *testing.T) *two {
	t.Helper()
	ctx, l := labtest.New(t, lab.Options{})
	w := &two{T: t, ctx: ctx}
	for name, m := range map[string]**lab.Machine{"a": &w.a, "b": &w.b} {
		var err error
		if *m, err = l.AddNetns(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *two) config() wan.Config {
	w.Helper()
	a, err := w.a.Leader()
	if err != nil {
		w.Fatal(err)
	}
	b, err := w.b.Leader()
	if err != nil {
		w.Fatal(err)
	}
	return ends(a, b)
}

func (w *two) start(c wan.Config) *wan.Link {
	w.Helper()
	l, err := wan.Start(w.ctx, c)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := l.Close(); err != nil {
			w.Error(err)
		}
	})
	return l
}

func (w *two) has(m *lab.Machine) bool {
	_, err := m.Exec(w.ctx, "ip", "link", "show", "wan0")
	return err == nil
}

// The link carries IPv4 and IPv6, takes its time, and is gone when it is closed.
func TestDelay(t *testing.T) {
	w := newTwo(t)
	c := w.config()
	c.MTU = 1280
	c.AtoB.Delay, c.BtoA.Delay = 20*time.Millisecond, 5*time.Millisecond
	l := w.start(c)
	for _, to := range []string{addrB, "fd77::2"} {
		// Others may use the machine as well, so that it can take a second try.
		labtest.Eventually(t, 20*time.Second, "a ping takes a little more than 25 ms", func() error {
			times, err := w.pings(to)
			if err != nil {
				return err
			}
			if times[0] < 25 {
				t.Errorf("pings of %s took %v ms, want at least 25", to, times)
			}
			if median := times[len(times)/2]; median > 30 {
				return fmt.Errorf("pings of %s took %v ms", to, times)
			}
			t.Logf("RESULT a ping over 25 ms takes %.2f ms", times[len(times)/2])
			return nil
		})
	}
	for _, m := range []*lab.Machine{w.a, w.b} {
		if out, err := m.Exec(w.ctx, "ip", "link", "show", "wan0"); err != nil || !strings.Contains(out, " mtu 1280 ") {
			t.Errorf("%s: %v\n%s", m.Name(), err, out)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if w.has(w.a) || w.has(w.b) {
		t.Error("a device is there after Close")
	}
	w.start(w.config()) // and its name is free
}

// pings are how long some took in milliseconds, from the shortest on.
func (w *two) pings(to string) ([]float64, error) {
	out, err := w.a.Exec(w.ctx, "ping", "-n", "-c", "11", "-i", "0.01", "-W", "2", to)
	if err != nil {
		return nil, err
	}
	var times []float64
	for _, match := range regexp.MustCompile(`time=([0-9.]+)`).FindAllStringSubmatch(out, -1) {
		ms, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			return nil, err
		}
		times = append(times, ms)
	}
	slices.Sort(times)
	return times, nil
}

// What the receiver sees is what the link says that it did.
func TestCounts(t *testing.T) {
	const packets = 20_000
	w := newTwo(t)
	c := w.config()
	c.Seed = 3
	l := w.start(c)
	var to net.PacketConn
	err := w.b.InNet(func() (err error) { to, err = net.ListenPacket("udp4", addrB+":7"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	keepAll(t, to)
	from, err := w.a.Dial("udp4", addrB+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	seen, err := exchange(from, to, 0) // and the addresses are resolved
	if err != nil || seen != 1 {
		t.Fatal(seen, err)
	}
	if err := l.Shape(wan.Path{Delay: time.Millisecond, Loss: 0.05, Duplicate: 0.1, Reorder: 0.1}, wan.Path{}); err != nil {
		t.Fatal(err)
	}
	before, came := l.Stats().AtoB, tally{got: make([]int, packets)}
	const run = 250 // less than the queue of a device holds
	for next := uint64(0); next < packets; next += run {
		for i := range uint64(run) {
			if _, err := from.Write(binary.BigEndian.AppendUint64(nil, next+i)); err != nil {
				t.Fatal(err)
			}
		}
		came.collect(t, to, func() (done bool, why string) {
			s := l.Stats().AtoB
			own := s.Frames - before.Frames - (next + run) // the kernel's, or fewer than were sent
			done = s.Frames-before.Frames >= next+run && s.Frames == s.Lost+s.Delivered-s.Duplicated && came.have+2*own >= s.Delivered-before.Delivered
			return done, fmt.Sprintf("%d came of %d that were sent; the link says %+v, before %+v", came.have, next+run, s, before)
		})
	}
	s, late := l.Stats().AtoB, came.late
	var lost, twice uint64
	for _, n := range came.got {
		if n == 0 {
			lost++
		}
		if n == 2 {
			twice++
		}
	}
	// The kernel has a few frames of its own to send meanwhile.
	extra := s.Frames - before.Frames - packets
	if extra > 50 || s.Lost-lost > extra || s.Duplicated-twice > extra || late == 0 || s.Overflowed+s.Refused != 0 {
		t.Errorf("the receiver misses %d, has %d twice and %d late; the link says %+v, before %+v", lost, twice, late, s, before)
	}
}

// keepAll gives a socket room for whatever comes while nobody reads.
func keepAll(t *testing.T, c net.PacketConn) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
}

// exchange sends one number and counts how often it arrives.
func exchange(from net.Conn, to net.PacketConn, number uint64) (int, error) {
	if _, err := from.Write(binary.BigEndian.AppendUint64(nil, number)); err != nil {
		return 0, err
	}
	if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	_, _, err := to.ReadFrom(make([]byte, 8))
	return 1, err
}

// tally is what came of numbers that were sent.
type tally struct {
	got        []int // how often each
	have, late uint64
	highest    uint64
}

// collect reads until everything has come: by the link's count, since a link that gets no
// processor has read nothing yet, and is as silent as one that has nothing to do.
func (c *tally) collect(t *testing.T, to net.PacketConn, all func() (done bool, why string)) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for buf := make([]byte, 8); ; {
		done, why := all()
		if time.Now().After(end) {
			t.Fatal(why)
		}
		if err := to.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, _, err := to.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if done {
				return
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		number := binary.BigEndian.Uint64(buf)
		c.got[number]++
		c.have++
		if number < c.highest {
			c.late++
		}
		c.highest = max(c.highest, number)
	}
}

// Bulk traffic both ways reaches the limit of speed, over a long link; the kernel
// hands over single frames, although the senders have whole bursts.
func TestThroughput(t *testing.T) {
	const rate, length = 400_000_000, 1500 * time.Millisecond
	w := newTwo(t)
	c := w.config()
	p := wan.Path{Delay: 10 * time.Millisecond, Rate: rate, Queue: 1 << 20}
	c.AtoB, c.BtoA = p, p
	l := w.start(c)
	// Others may use the machine as well, so that it can take a second try.
	labtest.Eventually(t, 30*time.Second, "both ways are fast at once", func() error {
		speed, cores, err := w.pourBoth(length)
		if err != nil {
			return err
		}
		t.Logf("RESULT %.0f and %.0f Mbit/s at once over 400 Mbit/s and 20 ms there and back, %.2f cores with sender and receiver",
			speed[0], speed[1], cores)
		if speed[0] < 200 || speed[1] < 200 {
			return fmt.Errorf("%.0f and %.0f Mbit/s", speed[0], speed[1])
		}
		return nil
	})
	s := l.Stats()
	if mean := float64(s.AtoB.Bytes+s.BtoA.Bytes) / float64(s.AtoB.Frames+s.BtoA.Frames); mean > 1514 {
		t.Errorf("frames of %.0f bytes in the mean", mean)
	}
}

// pourBoth sends both ways, and returns the speeds and what all of this process used.
func (w *two) pourBoth(length time.Duration) (speed [2]float64, cores float64, err error) {
	const flows = 4
	before, err := used()
	if err != nil {
		return speed, 0, err
	}
	var each [2][flows]float64
	var g errgroup.Group
	for i := range flows {
		g.Go(func() (err error) { each[0][i], err = pour(w.a, w.b, addrB, length); return err })
		g.Go(func() (err error) { each[1][i], err = pour(w.b, w.a, addrA, length); return err })
	}
	if err := g.Wait(); err != nil {
		return speed, 0, err
	}
	after, err := used()
	for i := range flows {
		speed[0] += each[0][i]
		speed[1] += each[1][i]
	}
	return speed, (after - before).Seconds() / length.Seconds(), err
}

// used is the processor time of this process.
func used() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// pour sends by TCP for a time and returns the speed of arrival in Mbit/s.
func pour(from, to *lab.Machine, addr string, length time.Duration) (float64, error) {
	var l net.Listener
	err := to.InNet(func() (err error) { l, err = net.Listen("tcp4", addr+":0"); return err })
	if err != nil {
		return 0, err
	}
	defer l.Close()
	out, err := from.Dial("tcp4", l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	end := time.Now().Add(length)
	if err := errors.Join(out.SetDeadline(end), in.SetDeadline(end)); err != nil {
		return 0, err
	}
	go func() {
		for block := make([]byte, 64<<10); ; {
			if _, err := out.Write(block); err != nil {
				return
			}
		}
	}()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, make([]byte, 64<<10))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("after %d bytes: %w", n, err)
	}
	return float64(n) * 8 / 1e6 / length.Seconds(), nil
}

// A link that cannot be made leaves nothing, and one whose process is killed neither.
func TestNothingIsLeftBehind(t *testing.T) {
	w := newTwo(t)
	c := w.config()
	c.B.Netns = "/proc/nobody/ns/net"
	if _, err := wan.Start(w.ctx, c); err == nil || !strings.Contains(err.Error(), c.B.Netns) {
		t.Errorf("a link to nowhere: %v", err)
	}
	c = w.config()
	c.AtoB.Loss = 2
	if _, err := wan.Start(w.ctx, c); err == nil || !strings.Contains(err.Error(), "Loss") {
		t.Errorf("a loss of 200%%: %v", err)
	}
	if w.has(w.a) || w.has(w.b) {
		t.Fatal("a device is there although there is no link")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a, _ := w.a.Leader()
	b, _ := w.b.Leader()
	cmd := exec.CommandContext(w.ctx, self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", holdEnv, a, b))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if !w.has(w.a) || !w.has(w.b) {
		t.Error("there is no device while the link is up")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	labtest.Eventually(t, 5*time.Second, "the devices are gone", func() error {
		if w.has(w.a) || w.has(w.b) {
			return errors.New("they are not")
		}
		return nil
	})
}
