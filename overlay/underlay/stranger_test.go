package underlay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	p2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-yamux/v5"
	"github.com/quic-go/quic-go"

	"github.com/kairos-io/kairos/overlay/internal/link"
)

// Who opens a TCP connection and says nothing, or something else, is cut in time, and
// others are served meanwhile.
func TestSilentStranger(t *testing.T) {
	const bound = 300 * time.Millisecond
	a, b := start(t, Config{}), start(t, Config{bounds: bounds{handshake: bound}})
	for name, said := range map[string]string{
		"nothing": "", "half a hello": "\x16\x03\x01\x02\x00\x01", "HTTP": "GET / HTTP/1.1\r\n\r\n",
		"multistream": "\x13/multistream/1.0.0\n",
	} {
		t.Run(name, func(t *testing.T) {
			raw := dialRaw(t, b)
			if _, err := io.WriteString(raw, said); err != nil {
				t.Fatal(err)
			}
			served(t, a, b)
			if _, err := io.Copy(io.Discard, raw); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("not cut: %v", err)
			}
		})
	}
}

// served waits until to serves who proves an identity. Its bound is so short that on a
// busy machine such a one may miss it as well, and calls again.
func served(t *testing.T, from, to *Underlay) {
	t.Helper()
	until(t, "others are served", func() bool {
		near, err := from.Dial(patient(t), TCP, to.Bound()[0], to.id())
		if err != nil {
			return false
		}
		defer func() { _ = near.Close(link.ReasonNone) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		far, err := to.Accept(ctx)
		if err != nil || far.Remote() != near.Local() {
			return false
		}
		stream(t, near, far)
		return true
	})
}

func dialRaw(t *testing.T, to *Underlay) net.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", to.Bound()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return raw
}

// A connection that nobody takes is closed after some time.
func TestNotAccepted(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{bounds: bounds{handshake: 200 * time.Millisecond}})
		var c *Conn
		until(t, "the handshake is done in so short a time", func() bool {
			var err error
			c, err = a.Dial(patient(t), via, b.Bound()[0], b.id())
			return err == nil
		})
		if _, err := c.AcceptStream(patient(t)); err == nil || patient(t).Err() != nil {
			t.Errorf("a stream comes: %v", err)
		}
	})
}

// Allow is asked with both addresses, before any work is done.
func TestAllow(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		var mu sync.Mutex
		var asked [][2]netip.AddrPort
		allow := true
		b := start(t, Config{Allow: func(remote, local netip.AddrPort) bool {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, [2]netip.AddrPort{remote, local})
			return allow
		}})
		a := start(t, Config{})
		near, far := connect(t, via, a, b)
		mu.Lock()
		if want := [2]netip.AddrPort{far.Remote(), b.Bound()[0]}; !slices.Equal(asked, [][2]netip.AddrPort{want}) {
			t.Errorf("asked %v, want %v", asked, want)
		}
		allow = false
		mu.Unlock()
		_ = near.Close(link.ReasonNone)
		if c, err := a.Dial(patient(t), via, b.Bound()[0], b.id()); err == nil {
			t.Errorf("a connection from where nothing is allowed: %v", c)
		}
		if n := b.Stats().Refused; n == 0 {
			t.Error("it is not counted")
		}
	})
}

// Only Ed25519 keys name nodes: who comes with another one is not let through.
func TestOtherKeys(t *testing.T) {
	b := start(t, Config{})
	key, _, err := crypto.GenerateECDSAKeyPair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := p2ptls.NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("tcp", func(t *testing.T) {
		conf, _ := id.ConfigForPeer("")
		c := tls.Client(dialRaw(t, b), conf)
		// The client's side is done before the server has seen its certificate.
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a key of another kind is accepted")
		}
	})
	t.Run("quic", func(t *testing.T) {
		conf, _ := id.ConfigForPeer("")
		c, err := quic.DialAddr(patient(t), b.Bound()[0].String(), conf, &quic.Config{})
		if err == nil {
			_, err = c.AcceptStream(patient(t))
		}
		if err == nil {
			t.Error("a key of another kind is accepted")
		}
	})
	t.Run("none", func(t *testing.T) {
		c := tls.Client(dialRaw(t, b), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("no key is accepted")
		}
	})
	t.Run("another protocol", func(t *testing.T) {
		ours, err := newCertificate(testKey(t))
		if err != nil {
			t.Fatal(err)
		}
		conf, _ := ours.ConfigForPeer("")
		conf.NextProtos = nil
		c := tls.Client(dialRaw(t, b), conf)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("who speaks no protocol is accepted")
		}
	})
}

// A stranger whose handshake is done, and who was not let in, cannot fill memory: not by
// bytes on streams, and not by streams.
func TestStrangerFillsNothing(t *testing.T) {
	over(t, func(t *testing.T, via Transport) {
		a, b := start(t, Config{}), start(t, Config{})
		near, far := connect(t, via, a, b)
		taken := 0
		junk := make([]byte, 64<<10)
		deadline := time.Now().Add(500 * time.Millisecond)
		for range 2 * maxStreams {
			s, err := near.mux.open(deadlined(t, deadline))
			if err != nil {
				break
			}
			if err := s.SetWriteDeadline(deadline); err != nil {
				t.Fatal(err)
			}
			n, err := s.Write(junk)
			if taken += n; err != nil {
				break
			}
		}
		if m, ok := far.mux.(*yamuxMuxer); ok {
			// The rest is in the sockets of both ends, and with the sender.
			if n := m.session.NumStreams(); n > 2 {
				t.Errorf("%d streams were read of a stranger", n)
			}
		} else if taken > 2<<20 {
			t.Errorf("%d bytes were taken of a stranger", taken)
		}
		t.Logf("%d bytes taken", taken)
		// Let in, it is served.
		if _, err := far.AcceptStream(patient(t)); err != nil {
			t.Error(err)
		}
	})
}

func deadlined(t *testing.T, at time.Time) context.Context {
	t.Helper()
	ctx, cancel := context.WithDeadline(t.Context(), at)
	t.Cleanup(cancel)
	return ctx
}

// What yamux itself sends as an error is no reason.
func TestForeignCodes(t *testing.T) {
	for _, err := range []error{
		&yamux.GoAwayError{Remote: true, ErrorCode: 1}, &yamux.GoAwayError{Remote: true, ErrorCode: codeBase},
		&yamux.GoAwayError{Remote: true, ErrorCode: codeBase + 200}, &yamux.GoAwayError{ErrorCode: codeOf(link.ReasonClone)},
		&quic.ApplicationError{Remote: true, ErrorCode: 1 << 40}, &quic.ApplicationError{ErrorCode: quic.ApplicationErrorCode(codeOf(link.ReasonClone))},
		io.EOF, nil,
	} {
		if r := reasonIn(err); r != link.ReasonNone {
			t.Errorf("%v is taken for %s", err, r)
		}
	}
}

// More bytes than a read at the start takes come through a corkedConn as they are.
func TestCorkedConnReads(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+int(rest[0])*300)
			if _, err := far.Write(rest[:n]); err != nil {
				t.Error(err)
			}
			rest = rest[n:]
		}
		_ = far.Close()
	}()
	got, err := io.ReadAll(newCorkedConn(near))
	if err != nil || !slices.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
}
