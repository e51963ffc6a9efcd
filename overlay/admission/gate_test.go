package admission

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/secret"
)

// fakeStream is a stream in memory of which the other end can be faster at closing.
type fakeStream struct {
	net.Conn
	closing error
}

func (s fakeStream) Close() error                                 { return errors.Join(s.closing, s.Conn.Close()) }
func (s fakeStream) CloseRead() error                             { return nil }
func (s fakeStream) CloseWrite() error                            { return nil }
func (s fakeStream) Reset() error                                 { return s.Conn.Close() }
func (s fakeStream) ResetWithError(network.StreamErrorCode) error { return s.Conn.Close() }

// fakeConn is one end of a connection with one stream.
type fakeConn struct {
	key    crypto.PubKey
	stream network.MuxedStream
}

func (c fakeConn) RemotePublicKey() crypto.PubKey { return c.key }
func (c fakeConn) RemoteMultiaddr() ma.Multiaddr {
	return ma.StringCast("/ip4/192.0.2.1/tcp/4171")
}
func (c fakeConn) OpenStream(context.Context) (network.MuxedStream, error) { return c.stream, nil }
func (c fakeConn) AcceptStream() (network.MuxedStream, error)              { return c.stream, nil }
func (c fakeConn) CloseWithError(network.ConnErrorCode) error              { return c.stream.Reset() }

func gateOf(t *testing.T, run byte) (*Gate, crypto.PubKey) {
	t.Helper()
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := key.ID()
	pub, err := crypto.UnmarshalEd25519PublicKey(id[:])
	if err != nil {
		t.Fatal(err)
	}
	return NewGate(Config{Key: secret.NewKey([32]byte{1}), Self: id, Run: Run{run}, Rand: rand.Reader, Deadline: 20 * time.Second}), pub
}

// Whoever closes the stream second may be told that it is gone. Both have
// proven the token by then, and both say so.
func TestEitherEndMayCloseFirst(t *testing.T) {
	gone := errors.New("close called for canceled stream")
	for _, c := range []struct {
		name             string
		listener, dialer error
	}{
		{"neither notices", nil, nil},
		{"the dialler was faster", gone, nil},
		{"the listener was faster", nil, gone},
	} {
		t.Run(c.name, func(t *testing.T) {
			listener, listenerKey := gateOf(t, 1)
			dialler, diallerKey := gateOf(t, 2)
			l, d := net.Pipe()
			dialled := make(chan error, 1)
			go func() {
				_, err := dialler.Admit(t.Context(), fakeConn{listenerKey, fakeStream{d, c.dialer}}, Dialled)
				dialled <- err
			}()
			if _, err := listener.Admit(t.Context(), fakeConn{diallerKey, fakeStream{l, c.listener}}, Accepted); err != nil {
				t.Errorf("listener: %v", err)
			}
			if err := <-dialled; err != nil {
				t.Errorf("dialler: %v", err)
			}
		})
	}
}
