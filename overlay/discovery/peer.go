package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kairos-io/kairos/overlay/identity"
)

// DefaultPort is the underlay port, UDP and TCP, of a node that was not told another.
const DefaultPort = 4171

// maxResolved bounds how many addresses of one name are tried.
const maxResolved = 8

// ErrPeer is returned, wrapped, for the text of a peer that cannot be read.
var ErrPeer = errors.New("not a peer address: write host:port, [IPv6]:port or a multiaddr such as /ip4/192.0.2.1/udp/4171/quic-v1")

// Peer is where a person said that a member is. Both QUIC and TCP are tried
// at the port, whichever the text named.
type Peer struct {
	Host string // name or IP address
	Port uint16
	ID   identity.ID // zero when it has to be learned from the connection
}

// String returns host:port.
func (p Peer) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }

// ParsePeer reads host, host:port, [IPv6]:port or a multiaddr with an IP
// address or DNS name, with or without /p2p/<peer ID>. The port defaults to
// DefaultPort. The error wraps ErrPeer.
func ParsePeer(text string) (Peer, error) {
	s := strings.TrimSpace(text)
	if strings.HasPrefix(s, "/") {
		return parseMultiaddr(s)
	}
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return Peer{Host: addr.String(), Port: DefaultPort}, nil
	}
	host, port := s, strconv.Itoa(DefaultPort)
	if strings.Contains(s, ":") {
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil {
			return Peer{}, fmt.Errorf("parse %q: %w", text, ErrPeer)
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || !validHost(host) {
		return Peer{}, fmt.Errorf("parse %q: %w", text, ErrPeer)
	}
	return Peer{Host: host, Port: uint16(number)}, nil
}

// validHost refuses zones along with all else that is no name: an address with one means
// nothing on another machine, and is text in disguise on this one.
func validHost(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == ""
	}
	return host != "" && len(host) <= 253 && !strings.ContainsAny(host, " \t\r\n/\\@:%[]")
}

func parseMultiaddr(s string) (Peer, error) {
	addr, err := ma.NewMultiaddr(s)
	if err != nil {
		return Peer{}, fmt.Errorf("parse %q: %w: %w", s, err, ErrPeer)
	}
	p := Peer{}
	for _, c := range addr {
		switch c.Code() {
		case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			p.Host = c.Value()
		case ma.P_UDP, ma.P_TCP:
			port, err := strconv.ParseUint(c.Value(), 10, 16)
			if err != nil {
				return Peer{}, fmt.Errorf("parse %q: %w", s, ErrPeer)
			}
			p.Port = uint16(port)
		case ma.P_QUIC_V1:
		case ma.P_P2P:
			if p.ID, err = idOf(c.Value()); err != nil {
				return Peer{}, fmt.Errorf("parse %q: %w: %w", s, err, ErrPeer)
			}
		default:
			return Peer{}, fmt.Errorf("parse %q: /%s is not supported: %w", s, c.Protocol().Name, ErrPeer)
		}
	}
	if !validHost(p.Host) || p.Port == 0 {
		return Peer{}, fmt.Errorf("parse %q: host or port is missing or cannot be used: %w", s, ErrPeer)
	}
	return p, nil
}

// idOf reads a libp2p peer ID, which for Ed25519 keys contains the key.
func idOf(s string) (identity.ID, error) {
	pid, err := peer.Decode(s)
	if err != nil {
		return identity.ID{}, err
	}
	key, err := pid.ExtractPublicKey()
	if err != nil {
		return identity.ID{}, err
	}
	if key.Type() != crypto.Ed25519 {
		return identity.ID{}, fmt.Errorf("peer ID of a %s key: nodes have Ed25519 keys", key.Type())
	}
	raw, err := key.Raw()
	if err != nil {
		return identity.ID{}, err
	}
	if len(raw) != len(identity.ID{}) {
		return identity.ID{}, fmt.Errorf("peer ID with a key of %d bytes", len(raw))
	}
	return identity.ID(raw), nil
}

// Resolver looks names up; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Resolve returns the addresses of the peer now, each once and without zone. A name is
// looked up each time, so that a peer whose address changes is found again.
func (p Peer) Resolve(ctx context.Context, r Resolver) ([]netip.AddrPort, error) {
	found := make([]netip.Addr, 1)
	var err error
	if found[0], err = netip.ParseAddr(p.Host); err != nil {
		if found, err = r.LookupNetIP(ctx, "ip", p.Host); err != nil {
			return nil, fmt.Errorf("resolve %s: %w", p.Host, err)
		}
	}
	var out []netip.AddrPort
	for _, addr := range found {
		at := netip.AddrPortFrom(addr.Unmap(), p.Port)
		if at.IsValid() && addr.Zone() == "" && len(out) < maxResolved && !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	return out, nil
}
