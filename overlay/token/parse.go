package token

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// Specification constants of the text form.
const (
	version      = 1
	prefix       = "KAIROS1-"
	brand        = "KAIROS"
	secretSize   = 32
	checksumSize = 7
	payloadSize  = 1 + secretSize + checksumSize // 40 bytes fill base32 without padding
	bodyLen      = payloadSize * 8 / 5
	textLen      = len(prefix) + bodyLen
	checksumTag  = "kairos/token/checksum"
	// maxText bounds what is looked at; everything longer is ErrFormat.
	maxText = 4096
)

// encoding is Crockford's base32: without I, L, O, U.
var encoding = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// lookalikes are the letters that the encoding does not have and that people
// write for those it has.
var lookalikes = strings.NewReplacer("O", "0", "I", "1", "L", "1")

// Reveal returns the text of the token: one line of 72 characters without a
// line end. It is "" for the zero Token. Keep it out of arguments, logs and files
// that others read.
func (t Token) Reveal() string {
	if t.secret == nil {
		return ""
	}
	payload := make([]byte, 0, payloadSize)
	payload = append(payload, (*t.secret).nodes)
	payload = append(payload, (*t.secret).root[:]...)
	payload = append(payload, checksum(payload)...)
	return prefix + encoding.EncodeToString(payload)
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
		return Token{}, fmt.Errorf("%d of %d characters: %w", len(s), textLen, ErrTruncated)
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
	if len(body) < bodyLen {
		return Token{}, fmt.Errorf("%d of %d characters: %w", len(prefix)+len(body), textLen, ErrTruncated)
	}
	if len(body) > bodyLen {
		return Token{}, fmt.Errorf("%d characters instead of %d: %w", len(prefix)+len(body), textLen, ErrTypo)
	}
	t, ok := decode(body)
	if !ok {
		return Token{}, fmt.Errorf("the checksum does not match: %w", ErrTypo)
	}
	if n := t.Nodes(); n < 1 || n > MaxNodes {
		return Token{}, fmt.Errorf("made for %d nodes: %w", n, ErrVersion)
	}
	return t, nil
}

// decode reads a body of the right length and alphabet.
func decode(body string) (Token, bool) {
	payload, err := encoding.DecodeString(body)
	if err != nil || len(payload) != payloadSize {
		return Token{}, false
	}
	covered, sum := payload[:1+secretSize], payload[1+secretSize:]
	// The checksum is no secret: comparing it needs no constant time.
	if string(sum) != string(checksum(covered)) {
		return Token{}, false
	}
	return wrap(&content{nodes: covered[0], root: [secretSize]byte(covered[1:])}), true
}

// classify says what is wrong with a text that does not start like a token. A
// good end tells that the damage is at the beginning.
func classify(s string) error {
	if len(s) < bodyLen {
		return ErrFormat
	}
	head, body := s[:len(s)-bodyLen], s[len(s)-bodyLen:]
	if _, ok := decode(lookalikes.Replace(body)); !ok {
		return ErrFormat
	}
	if strings.HasSuffix(prefix, head) {
		return fmt.Errorf("the beginning is missing: %w", ErrTruncated)
	}
	return fmt.Errorf("the beginning is not %s: %w", prefix, ErrTypo)
}

// otherVersion recognises KAIROS<digits>- with other digits than ours.
func otherVersion(s string) (string, bool) {
	rest, ok := strings.CutPrefix(s, brand)
	if !ok {
		return "", false
	}
	digits, _, ok := strings.Cut(rest, "-")
	if !ok || len(digits) == 0 || len(digits) > 4 || strings.Trim(digits, "0123456789") != "" {
		return "", false
	}
	return digits, true
}

func foreign(r rune) bool {
	return !strings.ContainsRune("0123456789ABCDEFGHJKMNPQRSTVWXYZ", r)
}

func checksum(content []byte) []byte {
	h := sha256.New()
	h.Write([]byte(checksumTag)) // a hash never fails to write
	h.Write([]byte{version})
	h.Write(content)
	return h.Sum(nil)[:checksumSize]
}
