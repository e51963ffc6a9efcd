package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"

	"github.com/kairos-io/kairos/overlay/admission"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
)

// admissible is a connection of libp2p as admission sees it.
type admissible struct {
	transport.CapableConn
	peer identity.ID
}

// Peer implements admission.Conn.
func (c admissible) Peer() identity.ID { return c.peer }

// Remote implements admission.Conn.
func (c admissible) Remote() netip.AddrPort { return remoteOf(c.CapableConn) }

// OpenStream implements admission.Conn.
func (c admissible) OpenStream(ctx context.Context) (link.Stream, error) {
	return c.CapableConn.OpenStream(ctx)
}

// AcceptStream implements admission.Conn. The end of a context ends the connection,
// as admission wants it anyway.
func (c admissible) AcceptStream(context.Context) (link.Stream, error) {
	return c.CapableConn.AcceptStream()
}

// Close implements admission.Conn.
func (c admissible) Close(reason link.Reason) error {
	code := network.ConnNoError
	switch reason {
	case link.ReasonShutdown:
		code = network.ConnShutdown
	case link.ReasonReplaced:
		code = network.ConnSupplanted
	case link.ReasonRefused:
		code = network.ConnGated
	}
	return c.CloseWithError(code)
}

// peerOf returns the ID that a connection's handshake authenticated. Only
// Ed25519 keys name nodes.
func peerOf(c interface{ RemotePublicKey() crypto.PubKey }) (identity.ID, error) {
	key := c.RemotePublicKey()
	if key == nil {
		return identity.ID{}, errors.New("read peer key: there is none")
	}
	if key.Type() != crypto.Ed25519 {
		return identity.ID{}, fmt.Errorf("read peer key: %s is not Ed25519", key.Type())
	}
	raw, err := key.Raw()
	if err != nil {
		return identity.ID{}, fmt.Errorf("read peer key: %w", err)
	}
	if len(raw) != len(identity.ID{}) {
		return identity.ID{}, fmt.Errorf("read peer key: %d bytes", len(raw))
	}
	return identity.ID(raw), nil
}

// admit runs the gate on a connection of libp2p, and closes it on any error.
func (m *Mesh) admit(ctx context.Context, raw transport.CapableConn, role admission.Role) (admission.Admission, error) {
	peer, err := peerOf(raw)
	if err != nil {
		_ = raw.CloseWithError(network.ConnNoError) // it is given up
		return admission.Admission{}, err
	}
	return m.gate.Admit(ctx, admissible{raw, peer}, role)
}

// known reports whether a peer was admitted, or vouched for by somebody who was.
func (m *Mesh) known(peer identity.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.targets[peer]
	return m.peers[peer] != nil || t != nil && !t.rumour
}
