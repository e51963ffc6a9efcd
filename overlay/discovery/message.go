package discovery

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Specification constants of what is said over multicast DNS (RFC 6762, RFC 6763).
const (
	serviceSuffix = "._udp.local."
	ttlSeconds    = 120
	idKey         = "id="
	addrKey       = "a="
	portKey       = "p="
	// maxListed bounds the addresses in one announcement, so that it fits an
	// Ethernet frame.
	maxListed = 8
	// maxDatagram is the largest mDNS message (RFC 6762 section 17).
	maxDatagram = 9000
)

// errForeign is for messages of other services; most mDNS traffic is.
var errForeign = errors.New("not about this service")

// ServiceName is the DNS-SD service under which members of one network look
// for each other. Whoever does not hold the token can tell nothing from it,
// except that two machines belong together.
func ServiceName(rendezvous [32]byte) string {
	return "_" + hex.EncodeToString(rendezvous[:7]) // 15 characters with the underscore: RFC 6763 section 7.2
}

// announcement is what a member says about itself.
type announcement struct {
	ID    identity.ID
	Port  uint16           // where it listens, at whatever address the message came from
	Addrs []netip.AddrPort // where it listens besides
}

// query builds the question who is there.
func query(service string) ([]byte, error) {
	name, err := dnsmessage.NewName(service + serviceSuffix)
	if err != nil {
		return nil, fmt.Errorf("build query: %w", err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, fmt.Errorf("build query: %w", err)
	}
	q := dnsmessage.Question{Name: name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}
	if err := b.Question(q); err != nil {
		return nil, fmt.Errorf("build query: %w", err)
	}
	return b.Finish()
}

// response builds an announcement: PTR to the instance, and its TXT.
func response(service string, a announcement) ([]byte, error) {
	name, err := dnsmessage.NewName(service + serviceSuffix)
	if err != nil {
		return nil, fmt.Errorf("build announcement: %w", err)
	}
	// A label of an ID: 52 characters are less than the 63 of a label.
	instance, err := dnsmessage.NewName(a.ID.String() + "." + service + serviceSuffix)
	if err != nil {
		return nil, fmt.Errorf("build announcement: %w", err)
	}
	txt := []string{idKey + a.ID.String(), portKey + strconv.Itoa(int(a.Port))}
	for _, addr := range a.Addrs[:min(len(a.Addrs), maxListed)] {
		txt = append(txt, addrKey+addr.String())
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true, Authoritative: true})
	b.EnableCompression()
	header := dnsmessage.ResourceHeader{Class: dnsmessage.ClassINET, TTL: ttlSeconds}
	if err := b.StartAnswers(); err != nil {
		return nil, fmt.Errorf("build announcement: %w", err)
	}
	header.Name = name
	if err := b.PTRResource(header, dnsmessage.PTRResource{PTR: instance}); err != nil {
		return nil, fmt.Errorf("build announcement: %w", err)
	}
	header.Name = instance
	if err := b.TXTResource(header, dnsmessage.TXTResource{TXT: txt}); err != nil {
		return nil, fmt.Errorf("build announcement: %w", err)
	}
	return b.Finish()
}

// parse reads a message from the network. asks is true for a query for the
// service; found holds the members that a response announces. Anything that is
// about other services, or broken, is an error and to be ignored.
func parse(service string, raw []byte) (asks bool, found []announcement, err error) {
	if len(raw) > maxDatagram {
		return false, nil, errForeign
	}
	var p dnsmessage.Parser
	header, err := p.Start(raw)
	if err != nil {
		return false, nil, fmt.Errorf("parse message: %w", err)
	}
	if !header.Response {
		asks, err = asked(&p, service)
		return asks, nil, err
	}
	if err := p.SkipAllQuestions(); err != nil {
		return false, nil, fmt.Errorf("parse message: %w", err)
	}
	for {
		a, err := nextAnnouncement(&p, service)
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return false, nil, fmt.Errorf("parse message: %w", err)
		}
		if !a.ID.IsZero() {
			found = append(found, a)
		}
	}
	if len(found) == 0 {
		return false, nil, errForeign
	}
	return false, found, nil
}

func asked(p *dnsmessage.Parser, service string) (bool, error) {
	for {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return false, errForeign
		}
		if err != nil {
			return false, fmt.Errorf("parse query: %w", err)
		}
		wanted := q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL
		if wanted && strings.EqualFold(q.Name.String(), service+serviceSuffix) {
			return true, nil
		}
	}
}

// nextAnnouncement reads one answer; the ID is zero when it is something else.
func nextAnnouncement(p *dnsmessage.Parser, service string) (announcement, error) {
	h, err := p.AnswerHeader()
	if err != nil {
		return announcement{}, err
	}
	label, ours := strings.CutSuffix(strings.ToLower(h.Name.String()), "."+service+serviceSuffix)
	if h.Type != dnsmessage.TypeTXT || !ours {
		return announcement{}, p.SkipAnswer()
	}
	txt, err := p.TXTResource()
	if err != nil {
		return announcement{}, err
	}
	a, ok := announced(txt.TXT)
	if !ok || a.ID.String() != label {
		return announcement{}, nil
	}
	return a, nil
}

func announced(txt []string) (a announcement, ok bool) {
	for _, s := range txt {
		switch {
		case strings.HasPrefix(s, idKey):
			id, err := identity.ParseID(strings.TrimPrefix(s, idKey))
			if err != nil {
				return announcement{}, false
			}
			a.ID = id
		case strings.HasPrefix(s, portKey):
			port, err := strconv.ParseUint(strings.TrimPrefix(s, portKey), 10, 16)
			if err != nil {
				return announcement{}, false
			}
			a.Port = uint16(port)
		case strings.HasPrefix(s, addrKey) && len(a.Addrs) < maxListed:
			// A broken address is passed over: the others may be good.
			if addr, err := netip.ParseAddrPort(strings.TrimPrefix(s, addrKey)); err == nil {
				a.Addrs = append(a.Addrs, addr)
			}
		}
	}
	return a, !a.ID.IsZero()
}
