package token

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Tags of the parts, see the package comment.
const (
	tagNodes = 1
	tagSeed  = 2
	tagDoors = 3
	tagOwner = 4
	tagPeers = 5
	tagLast  = tagPeers // the highest one that this version knows

	// tagCritical is set in the tag of a part that must not be passed over.
	tagCritical = 0x80
	partHeader  = 2 // tag and length
)

// Sizes of values, in bytes.
const (
	seedSize   = 16
	secretSize = 32
	doorSize   = 1 + secretSize
	maxDoors   = 2
	maxPeers   = 8
	maxPart    = 255 // since a length is one byte
	maxUnknown = 512 // parts of a later version, together: all parts fit into maxGroups
)

// content is what a token holds. Parse makes valid ones only.
type content struct {
	nodes   uint8
	seed    [seedSize]byte
	doors   []doorSecret // the newest first
	owner   Pin          // zero: none
	peers   []string
	unknown []byte // whole parts of a later version, as they came
}

// doorSecret is what one door is made of.
type doorSecret struct {
	gen    uint8 // not 0
	secret [secretSize]byte
}

// encode returns the payload with its checksum.
func (c *content) encode() []byte {
	out := []byte{0}
	out = appendPart(out, tagNodes, []byte{c.nodes})
	out = appendPart(out, tagSeed, c.seed[:])
	var doors []byte
	for _, d := range c.doors {
		doors = append(append(doors, d.gen), d.secret[:]...)
	}
	out = appendPart(out, tagDoors, doors)
	if c.owner != (Pin{}) {
		out = appendPart(out, tagOwner, c.owner[:])
	}
	out = appendPart(out, tagPeers, encodePeers(c.peers))
	out = append(out, c.unknown...)
	for (len(out)+checksumSize)%groupSize != 0 {
		out = append(out, 0)
	}
	out[0] = byte((len(out) + checksumSize) / groupSize)
	return append(out, checksum(out)...)
}

// appendPart leaves a part without a value out.
func appendPart(out []byte, tag byte, value []byte) []byte {
	if len(value) == 0 {
		return out
	}
	return append(append(out, tag, byte(len(value))), value...)
}

func encodePeers(peers []string) (out []byte) {
	for _, p := range peers {
		out = append(append(out, byte(len(p))), p...)
	}
	return out
}

// decode reads a payload whose checksum matches: whatever it cannot read was meant, and
// is ErrVersion.
func decode(payload []byte) (*content, error) {
	c := &content{}
	rest := payload[1 : len(payload)-checksumSize]
	last := byte(0)
	for len(rest) > 0 && rest[0] != 0 {
		if len(rest) < partHeader || len(rest) < partHeader+int(rest[1]) || rest[0] <= last {
			return nil, fmt.Errorf("its parts are not in order: %w", ErrVersion)
		}
		whole := rest[:partHeader+int(rest[1])]
		if err := c.take(whole); err != nil {
			return nil, err
		}
		last, rest = whole[0], rest[len(whole):]
	}
	// What is left are zeros up to the end of the last group.
	if len(rest) >= groupSize || strings.Trim(string(rest), "\x00") != "" {
		return nil, fmt.Errorf("its parts do not end where it ends: %w", ErrVersion)
	}
	if c.nodes == 0 || c.seed == [seedSize]byte{} || len(c.doors) == 0 {
		return nil, fmt.Errorf("a part is missing: %w", ErrVersion)
	}
	return c, nil
}

// take reads one part.
func (c *content) take(whole []byte) error {
	value, ok := whole[partHeader:], false
	switch tag := whole[0]; {
	case tag == tagNodes:
		if ok = len(value) == 1; ok {
			c.nodes = value[0]
		}
		if c.nodes < 1 || c.nodes > MaxNodes {
			return fmt.Errorf("made for %d nodes: %w", c.nodes, ErrVersion)
		}
	case tag == tagSeed:
		if ok = len(value) == seedSize; ok {
			c.seed = [seedSize]byte(value)
		}
	case tag == tagDoors:
		c.doors, ok = decodeDoors(value)
	case tag == tagOwner:
		if ok = len(value) == len(Pin{}); ok {
			c.owner = Pin(value)
		}
		ok = c.owner != Pin{}
	case tag == tagPeers:
		c.peers, ok = decodePeers(value)
	case tag&tagCritical != 0:
		return fmt.Errorf("it has a part, number %d, that must not be passed over: %w", tag, ErrVersion)
	default:
		c.unknown = append(c.unknown, whole...)
		ok = len(c.unknown) <= maxUnknown
	}
	if !ok {
		return fmt.Errorf("its part number %d cannot be read: %w", whole[0], ErrVersion)
	}
	return nil
}

// decodeDoors reads one or two doors of descending generations.
func decodeDoors(value []byte) ([]doorSecret, bool) {
	var out []doorSecret
	for d := range slices.Chunk(value, doorSize) {
		if len(d) != doorSize || len(out) == maxDoors || d[0] == 0 {
			return nil, false
		}
		if n := len(out); n > 0 && out[n-1].gen <= d[0] {
			return nil, false
		}
		out = append(out, doorSecret{gen: d[0], secret: [secretSize]byte(d[1:])})
	}
	return out, len(out) > 0
}

func decodePeers(value []byte) ([]string, bool) {
	var out []string
	for len(value) > 0 {
		size := 1 + int(value[0])
		if size > len(value) {
			return nil, false
		}
		out = append(out, string(value[1:size]))
		value = value[size:]
	}
	return out, validPeers(out) && len(out) > 0
}

// validPeers reports whether a token can carry these addresses.
func validPeers(peers []string) bool {
	return len(peers) <= maxPeers && len(encodePeers(peers)) <= maxPart && !slices.ContainsFunc(peers, func(p string) bool { return !validPeer(p) })
}

// validPeer admits name:port, IPv4:port and [IPv6]:port.
func validPeer(s string) bool {
	if strings.HasPrefix(s, "[") {
		addr, err := netip.ParseAddrPort(s)
		return err == nil && addr.Port() != 0 && addr.Addr().Zone() == "" && addr.String() == s
	}
	host, port, _ := strings.Cut(s, ":")
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return false
	}
	return host != "" && len(s) < maxPart && !strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}
