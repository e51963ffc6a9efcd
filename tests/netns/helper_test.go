package netns

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/session"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/overlay/wire"
)

// helperEnv makes the test binary play one of the helpers below instead of
// running tests: inside a machine, as a process of its own.
const helperEnv = "KAIROS_TEST_HELPER"

// helpers by name.
var helpers = map[string]func(ctx context.Context, args []string) error{
	"strangers": strangers, "spoof": spoof, "spoof-directly": spoofDirectly, "junk": junk, "flood": flood,
	"send-bytes": sendBytes, "take-bytes": takeBytes, "send-datagrams": sendDatagrams, "take-datagrams": takeDatagrams,
}

// helper runs "NAME ARGS..." and reports whether there was one to run.
func helper(words string) bool {
	args := strings.Fields(words)
	if len(args) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	f, ok := helpers[args[0]]
	if !ok {
		f = func(context.Context, []string) error { return fmt.Errorf("no helper %s", args[0]) }
	}
	if err := f(ctx, args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func keysOf(text string) (token.Keys, error) {
	t, err := token.Parse(text)
	if err != nil {
		return token.Keys{}, err
	}
	return t.Keys(), nil
}

func newMesh(ctx context.Context, keys token.Keys, peer string) (*mesh.Mesh, error) {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		return nil, err
	}
	return mesh.New(ctx, mesh.Config{
		Key: key, Keys: keys, Peers: []string{peer}, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")},
	})
}

// strangers is COUNT nodes, each with a key of its own and a token of none of
// the members, each of which tries once to get in at PEER. It fails if one gets in.
func strangers(ctx context.Context, args []string) error {
	peer := args[0]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(16)
	for range n {
		g.Go(func() error {
			wrong, err := token.Generate(rand.Reader, 3)
			if err != nil {
				return err
			}
			m, err := newMesh(ctx, wrong.Keys(), peer)
			if err != nil {
				return err
			}
			defer m.Close()
			for ctx.Err() == nil {
				s := m.Stats()
				if s.Peers > 0 {
					return errors.New("got in with a wrong token")
				}
				if s.DialsFailed > 0 {
					return nil
				}
				time.Sleep(5 * time.Millisecond)
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// liar is a member with the right token that does not play by the rules: it sends
// COUNT packets to DST that claim to come from SRC.
type liar struct {
	*mesh.Mesh
	keys   token.Keys
	victim identity.ID
	packet []byte
	count  int
}

// newLiar connects to a member; args are TOKEN PEER SRC DST COUNT.
func newLiar(ctx context.Context, args []string) (*liar, error) {
	l := &liar{packet: udpPacket(netip.MustParseAddr(args[2]), netip.MustParseAddr(args[3]))}
	var err error
	if l.count, err = strconv.Atoi(args[4]); err != nil {
		return nil, err
	}
	if l.keys, err = keysOf(args[0]); err != nil {
		return nil, err
	}
	if l.Mesh, err = newMesh(ctx, l.keys, args[1]); err != nil {
		return nil, err
	}
	events, cancel := l.Events()
	defer cancel()
	for e := range events {
		// The address names one member; the mesh meets others as well.
		for _, p := range l.Peers() {
			if e.Kind == mesh.PeerUp && p.ID == e.Peer && p.Remote.String() == args[1] {
				l.victim = e.Peer
				return l, nil
			}
		}
	}
	return nil, errors.New("the mesh closed before a member was found")
}

// spoof lies over a stream.
func spoof(ctx context.Context, args []string) error {
	l, err := newLiar(ctx, args)
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := l.Open(ctx, l.victim, datapath.Protocol)
	if err != nil {
		return err
	}
	var frames []byte
	for range l.count {
		frames = wire.AppendFrame(frames, l.packet, 0)
	}
	if _, err := s.Write(frames); err != nil {
		return err
	}
	fmt.Println("sent")
	<-ctx.Done() // the connection stays until the test has looked
	return nil
}

// spoofDirectly lies over the direct way.
func spoofDirectly(ctx context.Context, args []string) error {
	l, err := newLiar(ctx, args)
	if err != nil {
		return err
	}
	defer l.Close()
	keys, err := l.agree(ctx)
	for err != nil && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond) // the victim may not be so far
		keys, err = l.agree(ctx)
	}
	if err != nil {
		return err
	}
	to := l.Sources(l.victim)
	if len(to) == 0 {
		return errors.New("the victim is not connected over udp")
	}
	out, err := l.Sender(to[0])
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond) // a batch must not be lost for want of room
	defer tick.Stop()
	for left := l.count; left > 0; <-tick.C {
		var batch [][]byte
		for range min(left, 50) {
			packet, err := seal(keys, l.packet)
			if err != nil {
				return err
			}
			batch = append(batch, packet)
		}
		if _, err := out.Send(batch); err != nil {
			return err
		}
		left -= len(batch)
	}
	fmt.Println("sent")
	<-ctx.Done()
	return nil
}

// seal is all that a liar needs to know of the form of packets.
func seal(keys *session.Keys, packet []byte) ([]byte, error) { return keys.Seal(nil, packet, 0) }

// agree agrees on keys with the victim.
func (l *liar) agree(ctx context.Context) (*session.Keys, error) {
	s, err := l.Open(ctx, l.victim, datapath.SessionProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	handshake, message, err := session.Initiate(session.Party{
		Self: l.ID(), Peer: l.victim, PSK: s.(datapath.SessionStream).Secret(), Suites: session.Supported(true), Index: 1, Rand: rand.Reader,
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(message); err != nil {
		return nil, err
	}
	answer := make([]byte, session.HandshakeSize)
	if _, err := io.ReadFull(s, answer); err != nil {
		return nil, err
	}
	return handshake.Finish(answer)
}

// udpPacket is an IPv4 packet with an empty datagram to port 9.
func udpPacket(src, dst netip.Addr) []byte {
	s, d := src.As4(), dst.As4()
	p := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], 0, 9, 0, 9, 0, 8, 0, 0}
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(p[i])<<8 | uint32(p[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	p[10], p[11] = byte(^sum>>8), byte(^sum)
	return p
}
