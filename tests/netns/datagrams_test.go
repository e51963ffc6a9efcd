package netns

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A datagram says of itself how long it is, which one it is, and what it must
// contain:
//
//	size (2) number (4) CRC-32C of all else (4) noise that follows from the number
//
// One that is too short for that is its size, repeated. Answers are of another
// socket's direction and have a form of their own: the highest number so far (4).
const (
	datagramHeader = 2 + 4 + 4
	lastNumber     = 1<<32 - 1 // there are no more: answered with the same
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendDatagram makes a datagram of size bytes.
func appendDatagram(b []byte, number uint32, size int) []byte {
	begin := len(b)
	if size < datagramHeader {
		return append(b, bytes.Repeat([]byte{byte(size)}, size)...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = binary.BigEndian.AppendUint32(b, number)
	b = append(b, 0, 0, 0, 0)
	random := rand.NewPCG(uint64(number), uint64(size))
	for len(b)-begin < size {
		b = binary.LittleEndian.AppendUint64(b, random.Uint64())
	}
	b = b[:begin+size]
	binary.BigEndian.PutUint32(b[begin+6:], crc32.Checksum(b[begin:], castagnoli))
	return b
}

// checkDatagram finds out what is wrong with a datagram.
func checkDatagram(d, room []byte) (number uint32, short bool, err error) {
	if len(d) == 0 || len(d) < datagramHeader && int(d[0]) != len(d) {
		return 0, false, fmt.Errorf("%d bytes, cut: % x", len(d), d)
	}
	if len(d) < datagramHeader {
		if !bytes.Equal(d, appendDatagram(nil, 0, len(d))) {
			return 0, true, fmt.Errorf("%d bytes, damaged: % x", len(d), d)
		}
		return 0, true, nil
	}
	size := int(binary.BigEndian.Uint16(d))
	number = binary.BigEndian.Uint32(d[2:])
	if size != len(d) {
		return number, false, fmt.Errorf("datagram %d of %d bytes arrived as one of %d", number, size, len(d))
	}
	if !bytes.Equal(d, appendDatagram(room[:0], number, size)) {
		return number, false, fmt.Errorf("datagram %d of %d bytes is damaged", number, size)
	}
	return number, false, nil
}

// sent and taken are what the two ends say in the end, as a line "REPORT JSON".
type sent struct {
	Datagrams int // with numbers
	Short     int // without
	Segmented int // of both, by UDP_SEGMENT
}

type taken struct {
	Datagrams int
	Short     int
	Twice     int
	Wrong     int
	Examples  []string
}

func report(v any) error {
	text, err := json.Marshal(v)
	fmt.Println("REPORT", string(text))
	return err
}

// window is how many datagrams may be on their way.
const window = 200

// datagramSender sends as fast as the receiver answers.
type datagramSender struct {
	conn    *net.UDPConn
	largest int
	random  *rand.Rand
	heard   chan uint32 // what the receiver answers
	next    uint32
	known   uint32 // all before it have arrived, or are lost
	bytes   int64
	sent    sent
}

// sendDatagrams is a helper: it sends datagrams of up to LARGEST bytes to ADDRESS,
// SIZE bytes in all: single ones of any size, and runs of one size.
func sendDatagrams(ctx context.Context, args []string) error {
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	largest, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &datagramSender{
		conn: conn.(*net.UDPConn), largest: largest, random: rand.New(rand.NewPCG(1, uint64(largest))), heard: make(chan uint32, 1024),
	}
	go s.hear()
	for s.bytes < size {
		if err := s.run(); err != nil {
			return err
		}
		s.wait()
	}
	for ctx.Err() == nil { // until the receiver has heard it
		if _, err := conn.Write(appendDatagram(nil, lastNumber, datagramHeader)); err != nil {
			return err
		}
		s.wait()
		if s.known == lastNumber {
			return report(s.sent)
		}
		s.known = 0
		s.next = window + 1 // so that wait waits
	}
	return ctx.Err()
}

// hear takes answers until the socket is closed.
func (s *datagramSender) hear() {
	for buf := make([]byte, 4); ; {
		n, err := s.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == len(buf) {
			s.heard <- binary.BigEndian.Uint32(buf)
		}
	}
}

// wait waits until the window has room. What is not answered in time is lost.
func (s *datagramSender) wait() {
	timer := time.NewTimer(200 * time.Millisecond)
	defer timer.Stop()
	for s.next > s.known && s.next-s.known > window {
		select {
		case n := <-s.heard:
			s.known = max(s.known, n)
		case <-timer.C:
			s.known = s.next
		}
	}
}

// run sends a few datagrams of random sizes, or many of one size: one by one, or at
// once by UDP_SEGMENT, the last of them shorter.
func (s *datagramSender) run() error {
	size, count := 1+s.random.IntN(s.largest), 1+s.random.IntN(64)
	switch s.random.IntN(3) {
	case 0:
		for range count {
			if err := s.single(1 + s.random.IntN(s.largest)); err != nil {
				return err
			}
		}
		return nil
	case 1:
		for range count {
			if err := s.single(size); err != nil {
				return err
			}
		}
		return s.single(1 + s.random.IntN(size))
	}
	return s.segmented(size, min(count, 60_000/size))
}

func (s *datagramSender) count(size int) {
	s.bytes += int64(size)
	if size < datagramHeader {
		s.sent.Short++
	} else {
		s.sent.Datagrams++
		s.next++
	}
}

func (s *datagramSender) single(size int) error {
	_, err := s.conn.Write(appendDatagram(nil, s.next, size))
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOBUFS) {
		err = nil // of an earlier one; or lost
	}
	s.count(size)
	return err
}

// segmented sends count datagrams of one size and a shorter one at once.
func (s *datagramSender) segmented(size, count int) error {
	var all []byte
	for range count {
		all = appendDatagram(all, s.next, size)
		s.count(size)
	}
	last := 1 + s.random.IntN(size)
	all = appendDatagram(all, s.next, last)
	s.count(last)
	control := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(size))
	if _, _, err := s.conn.WriteMsgUDP(all, control, nil); err != nil {
		return fmt.Errorf("send %d times %d bytes by UDP_SEGMENT: %w", count, size, err)
	}
	s.sent.Segmented += count + 1
	return nil
}

// takeDatagrams is a helper: it listens on ADDRESS and checks what comes from the
// first sender until that says that there is no more. It says "listens ADDRESS".
func takeDatagrams(_ context.Context, args []string) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(args[0])))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := keepAll(conn); err != nil {
		return err
	}
	fmt.Println("listens", conn.LocalAddr())
	r := receiver{seen: map[uint32]bool{}}
	buf, room := make([]byte, 65536), make([]byte, 0, 65536)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return report(r.taken) // nothing came for a while after the last one
		}
		if err != nil {
			return err
		}
		number, answer := r.take(buf[:n], room)
		if number == lastNumber {
			if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
		}
		if !answer {
			continue
		}
		if _, err := conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(nil, number), from); err != nil {
			return err
		}
	}
}

// keepAll gives a socket room for whatever comes while nobody reads.
func keepAll(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	return errors.Join(err, serr)
}

// receiver is what the receiving end knows.
type receiver struct {
	taken
	seen    map[uint32]bool
	highest uint32
	silent  int // datagrams since the last answer
}

// take checks a datagram. The receiver is to answer with the number if it says so.
func (r *receiver) take(d, room []byte) (number uint32, answer bool) {
	number, short, err := checkDatagram(d, room)
	switch {
	case err != nil:
		r.wrong(err.Error())
		return 0, false
	case short:
		r.Short++
		return 0, false
	case number == lastNumber:
		return number, true
	case r.seen[number]:
		r.Twice++
		r.wrong(fmt.Sprintf("datagram %d of %d bytes came twice", number, len(d)))
		return 0, false
	}
	r.Datagrams++
	r.seen[number] = true
	r.highest = max(r.highest, number)
	if r.silent++; r.silent < 16 {
		return 0, false
	}
	r.silent = 0
	return r.highest, true
}

func (r *receiver) wrong(what string) {
	if r.Wrong++; len(r.Examples) < 10 {
		r.Examples = append(r.Examples, what)
	}
}
