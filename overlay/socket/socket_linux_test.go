package socket

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// patience bounds every wait.
const patience = 10 * time.Second

// listen opens a socket on the loopback interface.
func listen(t testing.TB, network string, receive Receiver) *Socket {
	t.Helper()
	ip := net.IPv4(127, 0, 0, 1)
	if network == "udp6" {
		ip = net.IPv6loopback
	}
	s, err := Listen(network, &net.UDPAddr{IP: ip}, receive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func addrOf(s *Socket) netip.AddrPort { return s.LocalAddr().(*net.UDPAddr).AddrPort() }

func sender(t testing.TB, from, to *Socket) *Sender {
	t.Helper()
	w, err := from.NewSender(netip.Addr{}, addrOf(to))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// data is a packet of ours of the given size that can be told from others.
func data(n, size int) []byte {
	p := bytes.Repeat([]byte{byte(n)}, size)
	p[0] = 0x01
	return p
}

// next reads one batch for QUIC.
func next(t testing.TB, s *Socket) []ipv4.Message {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1500)}, make([]byte, oobSize)
	}
	n, err := s.ReadBatch(ms, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ms[:n]
}

// Whatever the sizes, packets arrive as they were sent, in order, data at the
// Receiver and the rest at QUIC.
func TestPacketsStayApart(t *testing.T) {
	quicPacket := []byte("\x40 not ours")
	tests := map[string][][]byte{
		"one":                          {data(1, 100)},
		"equal ones":                   {data(1, 1400), data(2, 1400), data(3, 1400)},
		"a shorter one at the end":     {data(1, 1400), data(2, 1400), data(3, 7)},
		"a shorter one in the middle":  {data(1, 1400), data(2, 7), data(3, 1400)},
		"a longer one":                 {data(1, 7), data(2, 1400), data(3, 1401)},
		"more than one call takes":     slices.Repeat([][]byte{data(1, 1000)}, 3*maxSegments+1),
		"more than the Receiver takes": slices.Repeat([][]byte{data(1, 2)}, 2*maxPackets+3),
		"QUIC between them":            {data(1, 11), quicPacket, data(2, 11), quicPacket, data(3, 11)},
		"bytes of one":                 {{1}, {2}, {3}},
	}
	for _, network := range []string{"udp4", "udp6"} {
		for name, packets := range tests {
			for _, whole := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, %s, segmented %v", network, name, whole), func(t *testing.T) {
					from := listen(t, network, nil)
					from.unsegmented.Store(!whole)
					var got [][]byte
					to := listen(t, network, func(source Source, packets [][]byte) {
						if source.Remote != addrOf(from) {
							t.Errorf("from %v, want %v", source, addrOf(from))
						}
						for _, p := range packets {
							got = append(got, bytes.Clone(p))
						}
					})
					w := sender(t, from, to)
					end := []byte("\xc0 the end")
					if n, err := w.Send(append(slices.Clone(packets), end)); n != len(packets)+1 || err != nil {
						t.Fatalf("sent %d: %v", n, err)
					}
					var forQUIC [][]byte
					for len(forQUIC) == 0 || !bytes.Equal(forQUIC[len(forQUIC)-1], end) {
						for _, m := range next(t, to) {
							forQUIC = append(forQUIC, m.Buffers[0][:m.N])
							if m.Addr.String() != addrOf(from).String() {
								t.Errorf("QUIC hears from %v", m.Addr)
							}
						}
					}
					var wantData, wantQUIC [][]byte
					for _, p := range append(packets, end) {
						if IsData(p[0]) {
							wantData = append(wantData, p)
						} else {
							wantQUIC = append(wantQUIC, p)
						}
					}
					if !slices.EqualFunc(got, wantData, bytes.Equal) {
						t.Errorf("%d packets of data are not the %d that were sent", len(got), len(wantData))
					}
					if !slices.EqualFunc(forQUIC, wantQUIC, bytes.Equal) {
						t.Errorf("QUIC got %q, want %q", forQUIC, wantQUIC)
					}
				})
			}
		}
	}
}

// quic-go works on such a socket, with data beside it in both directions.
func TestQUICBesideData(t *testing.T) {
	const rounds = 200
	var heard [2]atomic.Int64
	var sockets [2]*Socket
	var transports [2]*quic.Transport
	for i := range sockets {
		sockets[i] = listen(t, "udp4", func(_ Source, packets [][]byte) { heard[i].Add(int64(len(packets))) })
		transports[i] = &quic.Transport{Conn: sockets[i]}
		t.Cleanup(func() { _ = transports[i].Close() })
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"test"}, InsecureSkipVerify: true}
	listener, err := transports[0].Listen(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	echoed := make(chan error, 1)
	go func() {
		c, err := listener.Accept(ctx)
		if err == nil {
			var s *quic.Stream
			if s, err = c.AcceptStream(ctx); err == nil {
				_, err = io.Copy(s, s)
				err = errors.Join(err, s.Close())
			}
		}
		echoed <- err
	}()
	c, err := transports[1].Dial(ctx, sockets[0].LocalAddr(), config, nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	senders := [2]*Sender{sender(t, sockets[0], sockets[1]), sender(t, sockets[1], sockets[0])}
	word := make([]byte, 8)
	for n := range rounds {
		for _, w := range senders {
			if _, err := w.Send([][]byte{data(n, 900), data(n, 900), data(n, 20)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Write(binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(stream, word); err != nil || binary.BigEndian.Uint64(word) != uint64(n) {
			t.Fatalf("round %d: echo %x, %v", n, word, err)
		}
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-echoed; err != nil {
		t.Fatal(err)
	}
	for i := range heard {
		for heard[i].Load() < 3*rounds {
			if ctx.Err() != nil {
				t.Fatalf("socket %d: %d packets of %d", i, heard[i].Load(), 3*rounds)
			}
			time.Sleep(time.Millisecond) // polls an atomic, with a deadline
		}
		if st := sockets[i].Stats(); st.KernelDrops != 0 || st.Unsegmented {
			t.Errorf("socket %d: %+v", i, st)
		}
	}
}

// certificate is one that nobody has to believe.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: private}
}

// Control messages reach QUIC: the ECN bits that a packet came with.
func TestECNReachesQUIC(t *testing.T) {
	to := listen(t, "udp4", nil)
	if err := to.fd.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	from, err := net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	const ect1 = 1
	if err := ipv4.NewConn(from).SetTOS(ect1); err != nil {
		t.Fatal(err)
	}
	if _, err := from.Write([]byte("\x40 with ECN")); err != nil {
		t.Fatal(err)
	}
	m := next(t, to)[0]
	for oob := m.OOB[:m.NN]; ; {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			t.Fatalf("no ECN in %x: %v", m.OOB[:m.NN], err)
		}
		if h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS {
			if body[0] != ect1 {
				t.Errorf("ECN %d", body[0])
			}
			return
		}
		oob = rest
	}
}

// A kernel or a card that refuses segments gets packets one by one from then on.
func TestWithoutSegments(t *testing.T) {
	heard := 0
	from, to := listen(t, "udp4", nil), listen(t, "udp4", func(_ Source, packets [][]byte) { heard += len(packets) })
	w := sender(t, from, to)
	// The kernel refuses to segment without checksums: udp(7), SO_NO_CHECK.
	if err := from.fd.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Send([][]byte{data(1, 100), data(2, 100), []byte("\x40")}); n != 3 || err != nil {
		t.Fatalf("sent %d: %v", n, err)
	}
	next(t, to)
	if heard != 2 || !from.Stats().Unsegmented {
		t.Errorf("%d arrived, %+v", heard, from.Stats())
	}
}

// Too large for the way: which one is told, and those before it are sent.
func TestTooLarge(t *testing.T) {
	from, to := listen(t, "udp4", nil), listen(t, "udp4", func(Source, [][]byte) {})
	w := sender(t, from, to)
	n, err := w.Send([][]byte{[]byte("\x40 small"), data(1, 70_000), data(2, 10)})
	if n != 1 || !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("sent %d: %v", n, err)
	}
	next(t, to)
	if from.Stats().Unsegmented {
		t.Error("it is taken for a lack of segmentation")
	}
}

// What may be lost waits for nobody: here for a receiver on the same machine.
func TestOfferDoesNotWait(t *testing.T) {
	from, to := listen(t, "udp4", nil), listen(t, "udp4", func(Source, [][]byte) {})
	w := sender(t, from, to)
	if err := w.Offer([]byte("\x40")); err != nil {
		t.Fatal(err)
	}
	next(t, to)
	if err := w.Offer(data(1, 70_000)); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("too large: %v", err)
	}
	w.waits, w.err = false, nil
	if done := w.trySend(^uintptr(0)); !done || !errors.Is(w.err, unix.EBADF) {
		t.Errorf("a closed socket: %v, %v", done, w.err)
	}
}

func TestAddressFamilies(t *testing.T) {
	s := listen(t, "udp4", nil)
	if _, err := s.NewSender(netip.Addr{}, netip.MustParseAddrPort("[::1]:9")); err == nil {
		t.Error("an IPv4 socket sends to IPv6")
	}
	if _, err := listen(t, "udp6", nil).NewSender(netip.Addr{}, netip.MustParseAddrPort("[fe80::1%nosuchcard]:9")); err == nil {
		t.Error("sends by a card that is not there")
	}
	// What QUIC calls an address may be IPv4 in IPv6's clothes.
	if _, err := s.NewSender(netip.Addr{}, netip.MustParseAddrPort("[::ffff:127.0.0.1]:9")); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsReading(t *testing.T) {
	s := listen(t, "udp4", nil)
	ended := make(chan error, 1)
	go func() {
		ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 10)}}}
		_, err := s.ReadBatch(ms, 0)
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("still reading")
	}
}

// Packets for QUIC that it does not read are lost in the end, and counted; those that
// came first are still there.
func TestQUICDoesNotRead(t *testing.T) {
	const more = 5
	heard := make(chan struct{})
	from, to := listen(t, "udp4", nil), listen(t, "udp4", func(Source, [][]byte) { close(heard) })
	w := sender(t, from, to)
	for i := range letters + more {
		if _, err := w.Send([][]byte{{0x40, byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Send([][]byte{data(1, 100)}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-heard: // so all of them were
	case <-time.After(patience):
		t.Fatal("data has to wait for QUIC")
	}
	if got := to.Stats().QUICDrops; got != more {
		t.Errorf("%d packets were dropped, want %d", got, more)
	}
	if got := next(t, to)[0].Buffers[0][1]; got != 0 {
		t.Errorf("the first packet is number %d", got)
	}
}

// A packet costs no allocation: what is left is the address of QUIC's one.
func TestNoAllocations(t *testing.T) {
	from, to := listen(t, "udp4", nil), listen(t, "udp4", func(Source, [][]byte) {})
	w := sender(t, from, to)
	packets := append(slices.Repeat([][]byte{data(1, 1200)}, 50), []byte("\x40"))
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 100)}, OOB: make([]byte, oobSize)}}
	n := testing.AllocsPerRun(50, func() {
		if _, err := w.Send(packets); err != nil {
			t.Fatal(err)
		}
		if _, err := to.ReadBatch(ms, 0); err != nil {
			t.Fatal(err)
		}
	})
	if n > 2 {
		t.Errorf("%v allocations for %d packets", n, len(packets))
	}
}
