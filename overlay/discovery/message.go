package discovery

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Specification constants of what is said over multicast DNS (RFC 6762).
const (
	nameSuffix = "._udp.local."
	nameDigits = 32
	// ttlSeconds is short because nobody asks for a name twice: responders of the
	// machine that keep what they hear are to forget it.
	ttlSeconds = 10
	maxString  = 255 // of a TXT record
	// maxDatagram is the largest mDNS message (RFC 6762 section 17).
	maxDatagram = 9000
	// maxSealed bounds the announcements that are looked at in one message, and
	// maxRecords what is passed over on the way to them.
	maxSealed  = 4
	maxRecords = 32
)

// newName draws a name for one message.
func newName(random io.Reader) (dnsmessage.Name, error) {
	var raw [nameDigits / 2]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return dnsmessage.Name{}, fmt.Errorf("draw name: %w", err)
	}
	return dnsmessage.NewName("_" + hex.EncodeToString(raw[:]) + nameSuffix)
}

// isName reports whether a name is one that newName draws.
func isName(name dnsmessage.Name) bool {
	digits, ok := strings.CutSuffix(strings.ToLower(name.String()), nameSuffix)
	digits, under := strings.CutPrefix(digits, "_")
	if !ok || !under || len(digits) != nameDigits {
		return false
	}
	_, err := hex.DecodeString(digits)
	return err == nil
}

// query builds the question who is there.
func query(random io.Reader) ([]byte, error) {
	name, err := newName(random)
	if err != nil {
		return nil, fmt.Errorf("build query: %w", err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{})
	if err := b.StartQuestions(); err != nil {
		return nil, fmt.Errorf("build query: %w", err)
	}
	q := dnsmessage.Question{Name: name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}
	if err := b.Question(q); err != nil {
		return nil, fmt.Errorf("build query: %w", err)
	}
	return b.Finish()
}

// response builds the message that carries a sealed announcement.
func response(sealed []byte, random io.Reader) ([]byte, error) {
	name, err := newName(random)
	if err != nil {
		return nil, fmt.Errorf("build announcement: %w", err)
	}
	var txt []string
	for rest := sealed; len(rest) > 0; rest = rest[min(len(rest), maxString):] {
		txt = append(txt, string(rest[:min(len(rest), maxString)]))
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true, Authoritative: true})
	if err := b.StartAnswers(); err != nil {
		return nil, fmt.Errorf("build announcement: %w", err)
	}
	header := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: ttlSeconds}
	if err := b.TXTResource(header, dnsmessage.TXTResource{TXT: txt}); err != nil {
		return nil, fmt.Errorf("build announcement: %w", err)
	}
	return b.Finish()
}

// parse reads a message from the network. asks is true for a question of this kind of
// machine; sealed holds what may be announcements. Anything that is about other services,
// or broken, is an error and to be ignored. Its work is bounded.
func parse(raw []byte) (asks bool, sealed [][]byte, err error) {
	if len(raw) > maxDatagram {
		return false, nil, errForeign
	}
	var p dnsmessage.Parser
	header, err := p.Start(raw)
	if err != nil {
		return false, nil, fmt.Errorf("parse message: %w", err)
	}
	if !header.Response {
		return asked(&p)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return false, nil, fmt.Errorf("parse message: %w", err)
	}
	for range maxRecords {
		one, err := nextSealed(&p)
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return false, nil, fmt.Errorf("parse message: %w", err)
		}
		if one != nil {
			sealed = append(sealed, one)
		}
		if len(sealed) == maxSealed {
			break
		}
	}
	if len(sealed) == 0 {
		return false, nil, errForeign
	}
	return false, sealed, nil
}

func asked(p *dnsmessage.Parser) (bool, [][]byte, error) {
	for range maxRecords {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return false, nil, fmt.Errorf("parse query: %w", err)
		}
		if q.Type == dnsmessage.TypePTR && isName(q.Name) {
			return true, nil, nil
		}
	}
	return false, nil, errForeign
}

// nextSealed reads one answer; nil when it is something else.
func nextSealed(p *dnsmessage.Parser) ([]byte, error) {
	h, err := p.AnswerHeader()
	if err != nil {
		return nil, err
	}
	if h.Type != dnsmessage.TypeTXT || !isName(h.Name) {
		return nil, p.SkipAnswer()
	}
	txt, err := p.TXTResource()
	if err != nil {
		return nil, err
	}
	all := []byte(strings.Join(txt.TXT, ""))
	if len(all) != sealedSize {
		return nil, nil
	}
	return all, nil
}
