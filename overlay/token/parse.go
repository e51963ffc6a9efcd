package token

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// Specification constants of the text form.
const (
	version      = 2
	prefix       = "KAIROS2-"
	brand        = "KAIROS"
	checksumSize = 7
	groupSize    = 5  // bytes
	groupLen     = 8  // characters
	minGroups    = 13 // one door and nothing that may be absent
	maxGroups    = 255
	checksumTag  = "kairos/token/checksum"
	// maxText bounds what is looked at; everything longer is ErrFormat.
	maxText = 4096
)

const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// encoding is Crockford's base32: without I, L, O, U.
var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// lookalikes are the letters that the encoding does not have and that people
// write for those it has.
var lookalikes = strings.NewReplacer("O", "0", "I", "1", "L", "1")

// Reveal returns the text of the token: one line without a line end. It is "" for the
// zero Token. Keep it out of arguments, logs and files that others read.
func (t Token) Reveal() string {
	if t.secret == nil {
		return ""
	}
	return prefix + encoding.EncodeToString((*t.secret).encode())
}

// Parse reads what Reveal wrote. The error wraps one of ErrEmpty, ErrTruncated,
// ErrTypo, ErrVersion and ErrFormat.
func Parse(text string) (Token, error) {
	if len(text) > maxText {
		return Token{}, ErrFormat
	}
	s := strings.ToUpper(strings.TrimSpace(text))
	switch {
	case s == "":
		return Token{}, ErrEmpty
	case strings.HasPrefix(s, prefix):
		return parseBody(s[len(prefix):])
	case strings.HasPrefix(prefix, s):
		return Token{}, fmt.Errorf("%d characters: %w", len(s), ErrTruncated)
	}
	if v, ok := otherVersion(s); ok {
		return Token{}, fmt.Errorf("version %s: %w", v, ErrVersion)
	}
	return Token{}, classify(s)
}

func parseBody(body string) (Token, error) {
	body = lookalikes.Replace(body)
	if i := strings.IndexFunc(body, foreign); i >= 0 {
		return Token{}, fmt.Errorf("character %d cannot be in a token: %w", len(prefix)+i+1, ErrTypo)
	}
	want := saidLen(body)
	switch {
	case len(body) == want:
	case mistypedLen(body):
		return Token{}, fmt.Errorf("one of the characters after %s is wrong: %w", prefix, ErrTypo)
	case len(body) < want:
		return Token{}, fmt.Errorf("%d of %d characters: %w", len(prefix)+len(body), len(prefix)+want, ErrTruncated)
	default:
		return Token{}, fmt.Errorf("%d characters instead of %d: %w", len(prefix)+len(body), len(prefix)+want, ErrTypo)
	}
	payload, ok := payloadOf(body)
	if !ok {
		return Token{}, fmt.Errorf("the checksum does not match: %w", ErrTypo)
	}
	c, err := decode(payload)
	if err != nil {
		return Token{}, err
	}
	return wrap(c), nil
}

// saidLen is how many characters the first two say that there are, and never less than
// every token has.
func saidLen(body string) int {
	groups := minGroups
	if len(body) >= 2 {
		first, second := strings.IndexByte(alphabet, body[0]), strings.IndexByte(alphabet, body[1])
		groups = max(groups, first<<3|second>>2)
	}
	return groups * groupLen
}

// mistypedLen reports whether body is a whole token but for the characters that say how
// long it is, so that it is not taken for one that was cut.
func mistypedLen(body string) bool {
	raw, err := encoding.DecodeString(body)
	if err != nil || len(raw)%groupSize != 0 || len(raw) < minGroups*groupSize {
		return false
	}
	raw[0], raw[1] = byte(len(raw)/groupSize), tagNodes // which both characters are part of
	return checked(raw)
}

// payloadOf decodes a whole body whose checksum matches.
func payloadOf(body string) ([]byte, bool) {
	raw, err := encoding.DecodeString(body)
	if err != nil || len(raw) < minGroups*groupSize || int(raw[0])*groupSize != len(raw) || !checked(raw) {
		return nil, false
	}
	return raw, true
}

// classify says what is wrong with a text that does not start like a token. A
// good end tells that the damage is at the beginning.
func classify(s string) error {
	for n := minGroups; n <= maxGroups && n*groupLen <= len(s); n++ {
		head, body := s[:len(s)-n*groupLen], s[len(s)-n*groupLen:]
		if _, ok := payloadOf(lookalikes.Replace(body)); !ok {
			continue
		}
		if strings.HasSuffix(prefix, head) {
			return fmt.Errorf("the beginning is missing: %w", ErrTruncated)
		}
		return fmt.Errorf("the beginning is not %s: %w", prefix, ErrTypo)
	}
	return ErrFormat
}

// otherVersion recognises KAIROS<digits>- with other digits than ours, and what has a
// letter after them, which is no token but something of this family.
func otherVersion(s string) (string, bool) {
	rest, ok := strings.CutPrefix(s, brand)
	if !ok {
		return "", false
	}
	name, _, ok := strings.Cut(rest, "-")
	if !ok || len(name) == 0 || len(name) > 5 {
		return "", false
	}
	digits := name
	if last := name[len(name)-1]; last >= 'A' && last <= 'Z' {
		digits = name[:len(name)-1]
	}
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return "", false
	}
	return name, true
}

func foreign(r rune) bool { return !strings.ContainsRune(alphabet, r) }

// checked reports whether the end of a payload is the checksum of the rest. It is no
// secret: comparing it needs no constant time.
func checked(payload []byte) bool {
	end := len(payload) - checksumSize
	return string(payload[end:]) == string(checksum(payload[:end]))
}

func checksum(covered []byte) []byte {
	h := sha256.New()
	h.Write([]byte(checksumTag)) // a hash never fails to write
	h.Write([]byte{version})
	h.Write(covered)
	return h.Sum(nil)[:checksumSize]
}
