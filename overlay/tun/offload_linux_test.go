package tun

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/overlay/offload"
)

// way is how a copier gets a packet from one kernel to the other.
type way struct {
	limit    int  // what a segment may have; 0: nothing is cut
	merge    bool // segments that come together are put together
	complete bool // checksums are filled in: every packet is whole
	apart    bool // the kernel that gets the packets takes no runs of datagrams
	small    bool // datagrams may not be cut: the limit is less than they have
}

// ways are those of a datapath, and those that a kernel has to accept as well.
var ways = map[string]way{
	"as large as they are":           {},
	"cut and merged":                 {limit: mtu, merge: true},
	"cut":                            {limit: mtu},
	"cut smaller and merged":         {limit: 1000, merge: true, small: true},
	"cut and completed":              {limit: mtu, complete: true},
	"runs of datagrams not taken":    {apart: true},
	"cut and merged, runs not taken": {limit: mtu, merge: true, apart: true},
}

const mtu = 1420

// copier carries packets from one kernel to another.
type copier struct {
	way
	from, to *Interface
	spoil    func(pkt []byte) // damages a packet that is complete; nil: nothing does

	merger         offload.Merger
	cutter         offload.Cutter
	large, joined  atomic.Int64 // packets that came to be cut, and that were put together
	refused, other atomic.Int64
}

func (c *copier) run() {
	buf := make([]byte, offload.BufferSize)
	for {
		p, err := c.from.Read(buf)
		switch {
		case errors.Is(err, offload.ErrPacket):
			c.other.Add(1)
		case err != nil:
			return
		case len(p.Data) == 0:
			c.flush()
			if c.from.Wait(false) != nil {
				return
			}
		case !p.Valid():
			c.other.Add(1)
		default:
			c.carry(p)
		}
	}
}

func (c *copier) carry(p offload.Packet) {
	if p.Segments() > 1 {
		c.large.Add(1)
	}
	if c.limit == 0 {
		c.add(p)
		c.flush()
		return
	}
	limit := c.limit
	if p.Segments() == 1 {
		limit = mtu // its sender would have to hear of it, which is not for here
	}
	if !c.cutter.Start(p, limit) {
		c.other.Add(1)
		return
	}
	for pkt := c.cutter.Next(); pkt != nil; pkt = c.cutter.Next() {
		one := offload.Packet{Data: bytes.Clone(pkt), Shape: p.Shape.Segment()}
		if c.complete {
			var err error
			if one, err = one.Complete(); err != nil {
				c.other.Add(1)
			}
			if c.spoil != nil {
				c.spoil(one.Data)
			}
		}
		c.add(one)
		if !c.merge {
			c.flush()
		}
	}
}

func (c *copier) add(p offload.Packet) {
	for !c.merger.Add(p) {
		c.flush()
	}
}

func (c *copier) flush() {
	h, parts := c.merger.Take()
	if len(parts) == 0 {
		return
	}
	if len(parts) > 1 {
		c.joined.Add(1)
	}
	if err := c.to.Write(h, parts); err != nil {
		c.refused.Add(1)
	}
}

// space is a network namespace: a thread in it that runs what it is given.
type space struct {
	do  chan func()
	ifc *Interface
}

func newSpace(t *testing.T, addrs ...string) *space {
	s := &space{do: make(chan func())}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		inNamespace(t, func(t *testing.T) {
			for f := range s.do {
				f()
			}
		})
	}()
	s.run(func() { s.ifc = open(t, false, addrs...) })
	t.Cleanup(func() {
		check(t, s.ifc.Close())
		close(s.do)
		<-gone
	})
	return s
}

func (s *space) run(f func()) {
	done := make(chan struct{})
	s.do <- func() {
		defer close(done)
		f()
	}
	<-done
}

// line is two kernels and what carries packets between them.
type line struct {
	a, b    *space
	there   *copier
	back    *copier
	running sync.WaitGroup
}

// newLine needs root: elsewhere the test says that it did not run.
func newLine(t *testing.T, w way) *line {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root for network namespaces and TUN devices")
	}
	l := &line{a: newSpace(t, "10.7.0.1/16", "fd00:7::1/64"), b: newSpace(t, "10.7.0.2/16", "fd00:7::2/64")}
	l.there = &copier{way: w, from: l.a.ifc, to: l.b.ifc}
	l.back = &copier{way: w, from: l.b.ifc, to: l.a.ifc}
	if w.apart {
		l.a.ifc.udp, l.b.ifc.udp = false, false
	}
	t.Cleanup(l.running.Wait)
	t.Cleanup(func() { _, _ = l.a.ifc.Close(), l.b.ifc.Close() })
	return l
}

func (l *line) start(t *testing.T) *line {
	t.Helper()
	l.running.Go(l.there.run)
	l.running.Go(l.back.run)
	for _, addr := range farEnds { // an interface that was just made may not carry the first packets
		d := l.datagrams(t, addr)
		for tries := 1; ; tries++ {
			check(t, d.to.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
			err := errors.Join(d.send([]byte{1}, 0), d.want([]byte{1}))
			if err == nil {
				break
			}
			if tries == 500 {
				t.Fatalf("nothing gets through: %v", err)
			}
		}
	}
	return l
}

// wantClean checks that no kernel and no check was in the way of a packet.
func (l *line) wantClean(t *testing.T) {
	t.Helper()
	for name, c := range map[string]*copier{"there": l.there, "back": l.back} {
		if refused, other := c.refused.Load(), c.other.Load(); refused+other > 0 {
			t.Errorf("%s: the kernel refuses %d packets, and offload %d", name, refused, other)
		}
	}
}

var farEnds = map[string]netip.Addr{"IPv4": netip.MustParseAddr("10.7.0.2"), "IPv6": netip.MustParseAddr("fd00:7::2")}

// option makes a control function of a socket option.
func option(level, name int, value []byte) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), level, name, string(value)) }), err)
	}
}

func TestKernelsTakeTCP(t *testing.T) {
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, w).start(t)
			for end, addr := range farEnds {
				l.transfer(t, addr, nil)
				t.Logf("%s: %d packets to be cut, %d put together", end, l.there.large.Load(), l.there.joined.Load())
			}
			l.wantClean(t)
			if n := l.there.large.Load(); n == 0 {
				t.Error("the kernel leaves nothing to be cut")
			}
			if n := l.there.joined.Load(); n == 0 && w.merge {
				t.Error("nothing is put together")
			}
		})
	}
}

// Headers may be longer than usual.
func TestKernelsTakeOptions(t *testing.T) {
	for name, c := range map[string]struct {
		end     string
		control func(string, string, syscall.RawConn) error
	}{
		"options of IPv4":      {"IPv4", option(unix.IPPROTO_IP, unix.IP_OPTIONS, []byte{1, 1, 1, 0})},
		"a destination header": {"IPv6", option(unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, []byte{0, 0, 1, 4, 0, 0, 0, 0})},
		"a hop-by-hop header":  {"IPv6", option(unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, []byte{0, 0, 1, 4, 0, 0, 0, 0})},
	} {
		for what, w := range ways {
			t.Run(name+"/"+what, func(t *testing.T) {
				l := newLine(t, w).start(t)
				l.transfer(t, farEnds[c.end], c.control)
				l.wantClean(t)
			})
		}
	}
}

// transfer sends by TCP from a to b, and checks what arrives.
func (l *line) transfer(t *testing.T, to netip.Addr, control func(string, string, syscall.RawConn) error) {
	t.Helper()
	const size = 4 << 20
	var ln net.Listener
	var client net.Conn
	var err error
	l.b.run(func() { ln, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialer := net.Dialer{Timeout: 10 * time.Second, Control: control}
	l.a.run(func() { client, err = dialer.Dial("tcp", ln.Addr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	check(t, errors.Join(client.SetDeadline(time.Now().Add(30*time.Second)), server.SetDeadline(time.Now().Add(30*time.Second))))
	sent, got := sha256.New(), sha256.New()
	var sending sync.WaitGroup
	sending.Go(func() {
		_, err := io.Copy(client, io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sent))
		check(t, err)
		check(t, client.(*net.TCPConn).CloseWrite())
	})
	n, err := io.Copy(got, server)
	sending.Wait()
	if err != nil || n != size || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d of %d bytes to %v, error %v", n, size, to, err)
	}
}

// datagrams is a socket in a, and the one in b that it talks to.
type datagrams struct {
	from, to *net.UDPConn
	buf      []byte
}

func (l *line) datagrams(t *testing.T, to netip.Addr) *datagrams {
	t.Helper()
	d := &datagrams{buf: make([]byte, 1<<16)}
	var err, err2 error
	l.b.run(func() { d.to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0))) })
	if err != nil {
		t.Fatal(err)
	}
	l.a.run(func() { d.from, err2 = net.DialUDP("udp", nil, d.to.LocalAddr().(*net.UDPAddr)) })
	if err2 != nil {
		t.Fatal(err2)
	}
	t.Cleanup(func() { _, _ = d.from.Close(), d.to.Close() })
	check(t, d.to.SetReadDeadline(time.Now().Add(20*time.Second)))
	return d
}

// send sends b, in segments if size is not 0.
func (d *datagrams) send(b []byte, size int) error {
	if size == 0 {
		_, err := d.from.Write(b)
		return err
	}
	control := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(size))
	_, _, err := d.from.WriteMsgUDP(b, control, nil)
	return err
}

// want waits for the next datagram.
func (d *datagrams) want(b []byte) error {
	n, err := d.to.Read(d.buf)
	if err == nil && !bytes.Equal(d.buf[:n], b) {
		err = fmt.Errorf("%d bytes arrive, others than the %d that were sent", n, len(b))
	}
	return err
}

// Datagrams of all sizes arrive as they are, alone and in runs.
func TestKernelsTakeDatagrams(t *testing.T) {
	random := make([]byte, 1<<16)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(random)
	for name, w := range ways {
		if w.small {
			continue
		}
		for end, addr := range farEnds {
			t.Run(name+"/"+end, func(t *testing.T) {
				l := newLine(t, w).start(t)
				d := l.datagrams(t, addr)
				largest := mtu - 28
				if end == "IPv6" {
					largest = mtu - 48
				}
				for size := range largest + 1 {
					if err := errors.Join(d.send(random[size:2*size], 0), d.want(random[size:2*size])); err != nil {
						t.Fatalf("size %d: %v", size, err)
					}
					if size < 2 {
						continue // no shape says that a run has datagrams of a byte
					}
					run := random[size : size+4*size+size/2]
					if err := d.send(run, size); err != nil {
						t.Fatalf("run of %d: %v", size, err)
					}
					for segment := range slices.Chunk(run, size) {
						if err := d.want(segment); err != nil {
							t.Fatalf("run of %d: %v", size, err)
						}
					}
				}
				l.wantClean(t)
				if n := l.there.large.Load(); n == 0 {
					t.Error("the kernel leaves nothing to be cut")
				}
			})
		}
	}
}

// A kernel counts the checksums that are wrong, and passes none of the packets on:
// that all those before arrived is because they were right.
func TestKernelRefusesWrongChecksums(t *testing.T) {
	for end, addr := range farEnds {
		t.Run(end, func(t *testing.T) {
			l := newLine(t, way{limit: mtu, complete: true, merge: true})
			l.there.spoil = func(pkt []byte) {
				if at := bytes.Index(pkt, []byte("spoil me")); at > 0 {
					pkt[at] ^= 1
				}
			}
			l.start(t)
			d := l.datagrams(t, addr)
			const bad = 10
			for i := range bad {
				check(t, d.send([]byte("spoil me"), 0))
				check(t, d.send([]byte{byte(i)}, 0))
				check(t, d.want([]byte{byte(i)}))
			}
			if n := l.b.wrongChecksums(t, addr); n != bad {
				t.Errorf("%d wrong checksums are counted, want %d", n, bad)
			}
			l.wantClean(t)
		})
	}
}

// wrongChecksums is what the kernel has counted of UDP.
func (s *space) wrongChecksums(t *testing.T, of netip.Addr) int {
	t.Helper()
	name := "snmp"
	if of.Is6() {
		name = "snmp6"
	}
	var text []byte
	var err error
	s.run(func() { text, err = os.ReadFile("/proc/thread-self/net/" + name) })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case fields[0] == "Udp6InCsumErrors":
			n, _ := strconv.Atoi(fields[1])
			return n
		case fields[0] == "Udp:" && names == nil:
			names = fields
		case fields[0] == "Udp:":
			n, _ := strconv.Atoi(fields[slices.Index(names, "InCsumErrors")])
			return n
		}
	}
	t.Fatal("the kernel does not count")
	return 0
}
