package netns

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kairos-io/kairos/overlay/datapath"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/token"
	"github.com/kairos-io/kairos/overlay/wire"
)

// helperEnv makes the test binary play one of the helpers below instead of
// running tests: inside a machine, as a process of its own.
const helperEnv = "KAIROS_TEST_HELPER"

// helper runs "NAME ARGS..." and reports whether there was one to run.
func helper(words string) bool {
	args := strings.Fields(words)
	if len(args) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	err := fmt.Errorf("no helper %s", args[0])
	switch args[0] {
	case "strangers":
		err = strangers(ctx, args[1], args[2])
	case "spoof":
		err = spoof(ctx, args[1:])
	}
	if err != nil {
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
func strangers(ctx context.Context, peer, count string) error {
	n, err := strconv.Atoi(count)
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

// spoof is a member with the right token that does not play by the rules: over
// a stream to the member at PEER it sends COUNT packets to DST that claim to come
// from SRC, and then one that is no packet at all.
func spoof(ctx context.Context, args []string) error {
	keys, err := keysOf(args[0])
	if err != nil {
		return err
	}
	src, dst := netip.MustParseAddr(args[2]), netip.MustParseAddr(args[3])
	count, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	m, err := newMesh(ctx, keys, args[1])
	if err != nil {
		return err
	}
	defer m.Close()
	events, cancel := m.Events()
	defer cancel()
	for e := range events {
		if e.Kind != mesh.PeerUp {
			continue
		}
		s, err := m.Open(ctx, e.Peer, datapath.Protocol)
		if err != nil {
			return err
		}
		var frames []byte
		for range count {
			frames = wire.AppendFrame(frames, udpPacket(src, dst), 0)
		}
		if _, err := s.Write(frames); err != nil {
			return err
		}
		fmt.Println("sent")
		<-ctx.Done() // the connection stays until the test has looked
		return nil
	}
	return errors.New("the mesh closed before a member was found")
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
