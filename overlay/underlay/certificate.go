package underlay

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	p2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/kairos-io/kairos/overlay/identity"
)

// alpn is what both ends say they speak, as libp2p's TLS names it: an observer sees one
// more libp2p node.
const alpn = "libp2p"

// The ends of a certificate's validity: the first and the last year that one can hold
// (RFC 5280, section 4.1.2.5.2), so that no clock is outside. Whom a certificate speaks
// for is proven by the key's signature in it, and ended by what the mesh thinks of the
// key.
var (
	firstDay = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastDay  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// newCertificate makes the TLS identity of a key. Its certificate carries the key's
// signature over a throw-away one (libp2p's TLS specification).
func newCertificate(key identity.Key) (*p2ptls.Identity, error) {
	private, err := privateKey(key)
	if err != nil {
		return nil, err
	}
	template, err := certTemplate()
	if err != nil {
		return nil, err
	}
	id, err := p2ptls.NewIdentity(private, p2ptls.WithCertTemplate(template))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return id, nil
}

// privateKey is a key as libp2p takes it.
func privateKey(key identity.Key) (crypto.PrivKey, error) {
	private, err := crypto.UnmarshalEd25519PrivateKey(key.Private())
	if err != nil {
		return nil, fmt.Errorf("read identity key: %w", err)
	}
	return private, nil
}

func certTemplate() (*x509.Certificate, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 62)
	serial, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	subject, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return nil, fmt.Errorf("draw subject: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{SerialNumber: subject.String()},
		NotBefore: firstDay, NotAfter: lastDay,
	}, nil
}

// handshake is what becomes known of a connection before it is one.
type handshake struct {
	dialled bool
	want    identity.ID // who must be at the other end; zero for anybody
	peer    identity.ID // who is; of use once the handshake has ended well
	scope   network.ConnManagementScope
}

// config is what TLS needs for one handshake. Whom it meets is noted in h, also when that
// is not the wanted one.
func (h *handshake) config(id *p2ptls.Identity) *tls.Config {
	conf, keys := id.ConfigForPeer("")
	verify := conf.VerifyPeerCertificate
	conf.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
		if err := verify(raw, chains); err != nil {
			return err
		}
		peer, err := idOf(<-keys)
		if err != nil {
			return err
		}
		if h.peer = peer; !h.want.IsZero() && peer != h.want {
			return &WrongPeerError{Want: h.want, Got: peer}
		}
		return nil
	}
	return conf
}

// done checks the end of the handshake, and counts the connection as one of the peer.
func (h *handshake) done(state tls.ConnectionState) error {
	if state.NegotiatedProtocol != alpn {
		return fmt.Errorf("the peer speaks %q", state.NegotiatedProtocol)
	}
	if h.peer.IsZero() {
		return errors.New("the peer has shown no key")
	}
	name, err := peerName(h.peer)
	if err != nil {
		return err
	}
	return h.scope.SetPeer(name)
}

// idOf is the node that a key names. Only Ed25519 keys do.
func idOf(key crypto.PubKey) (identity.ID, error) {
	if key == nil || key.Type() != crypto.Ed25519 {
		return identity.ID{}, errors.New("read certificate: not of an Ed25519 key")
	}
	raw, err := key.Raw()
	if err != nil {
		return identity.ID{}, fmt.Errorf("read certificate: %w", err)
	}
	if len(raw) != len(identity.ID{}) {
		return identity.ID{}, errors.New("read certificate: not the size of an Ed25519 key")
	}
	return identity.ID(raw), nil
}

// peerName is libp2p's name of a node.
func peerName(id identity.ID) (peer.ID, error) {
	key, err := crypto.UnmarshalEd25519PublicKey(id[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(key)
}

// derive makes a secret of this node's own, the same each time that it starts.
func derive(key identity.Key, label string) ([32]byte, error) {
	out, err := hkdf.Key(sha256.New, key.Private().Seed(), nil, "kairos/"+label, 32)
	if err != nil {
		return [32]byte{}, fmt.Errorf("derive %s key: %w", label, err)
	}
	return [32]byte(out), nil
}
