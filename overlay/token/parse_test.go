package token

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
)

var sentinels = []error{ErrEmpty, ErrTruncated, ErrTypo, ErrVersion, ErrFormat}

func TestParseErrors(t *testing.T) {
	good := sample(t).Reveal()
	body := good[len(prefix):]
	first := "KAIROS1-0C0020G30G2GC1R81450P30D1R7H048J2CA1A5GQ30CHM6RW3MF1Z2XR6X6XASZS" // of the first version
	older := base64.StdEncoding.EncodeToString([]byte("otp:\n  dht:\n    interval: 9000\n    key: abcdefgh\n    length: 43\nroom: abcdefgh\n"))
	for _, c := range []struct {
		name string
		text string
		want error
	}{
		{"nothing", "", ErrEmpty},
		{"white space", " \t\r\n", ErrEmpty},
		{"last character missing", good[:len(good)-1], ErrTruncated},
		{"half", good[:len(good)/2], ErrTruncated},
		{"prefix only", prefix, ErrTruncated},
		{"part of the prefix", "KAIR", ErrTruncated},
		{"first character missing", good[1:], ErrTruncated},
		{"prefix missing", body, ErrTruncated},
		{"all but the length", prefix + "1", ErrTruncated},
		{"one group missing", good[:len(good)-groupLen], ErrTruncated},
		{"one character changed", good[:30] + string(alphabet[31-strings.IndexByte(alphabet, good[30])]) + good[31:], ErrTypo},
		{"one character more", good + "0", ErrTypo},
		{"twice in one line", good + good, ErrTypo},
		{"a character that is not ours", good[:20] + "U" + good[21:], ErrTypo},
		{"not ASCII", good[:20] + "é" + good[21:], ErrTypo},
		{"line break in the middle", good[:40] + "\n" + good[40:], ErrTypo},
		{"mistyped prefix", "KAIRSO1-" + body, ErrTypo},
		{"text before it", "token: " + good, ErrTypo},
		{"one group more", good + good[len(good)-groupLen:], ErrTypo},
		{"first version", first, ErrVersion},
		{"next version", "KAIROS3-" + body, ErrVersion},
		{"far version", "KAIROS42-whatever", ErrVersion},
		{"something of the family", "KAIROS2T-" + body, ErrVersion},
		{"a word", "hello", ErrFormat},
		{"a placeholder", "...", ErrFormat},
		{"a token of another program", older, ErrFormat},
		{"a k3s token", "K10" + strings.Repeat("ab", 32) + "::server:" + strings.Repeat("c", 32), ErrFormat},
		{"binary", string([]byte{0xff, 0xfe, 0}), ErrFormat},
		{"very long", strings.Repeat(good, 1000), ErrFormat},
		{"redacted", redacted, ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.text)
			checkError(t, c.text, err)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// checkError demands exactly one sentinel, and a text that does not quote the token.
func checkError(t *testing.T, text string, err error) {
	t.Helper()
	matched := 0
	for _, s := range sentinels {
		if errors.Is(err, s) {
			matched++
		}
	}
	if matched != 1 {
		t.Errorf("%v is %d kinds of errors", err, matched)
	}
	if err != nil && len(text) > 16 && strings.Contains(strings.ToUpper(err.Error()), strings.ToUpper(text[len(text)-16:])) {
		t.Errorf("%v quotes the token", err)
	}
}

func TestParseForgives(t *testing.T) {
	good := sample(t).Reveal()
	body := good[len(prefix):]
	for name, text := range map[string]string{
		"lower case":      strings.ToLower(good),
		"spaces around":   "  " + good + "\r\n",
		"o for zero":      prefix + strings.ReplaceAll(body, "0", "o"),
		"i for one":       prefix + strings.ReplaceAll(body, "1", "I"),
		"l for one":       prefix + strings.ReplaceAll(body, "1", "l"),
		"as it should be": good,
	} {
		tok, err := Parse(text)
		if err != nil || tok.Reveal() != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every slip of a finger is told as one: no other token comes out.
func TestEverySlip(t *testing.T) {
	for _, tok := range []Token{sample(t), fullToken(t)} {
		everySlip(t, tok.Reveal())
	}
}

func everySlip(t *testing.T, good string) {
	t.Helper()
	for i := len(prefix); i < len(good); i++ {
		for _, c := range "0123456789ABCDEFGHJKMNPQRSTVWXYZ" {
			if byte(c) == good[i] {
				continue
			}
			if _, err := Parse(good[:i] + string(c) + good[i+1:]); !errors.Is(err, ErrTypo) {
				t.Fatalf("%c at %d: %v", c, i, err)
			}
		}
		if i+1 < len(good) && good[i] != good[i+1] {
			swapped := good[:i] + good[i+1:i+2] + good[i:i+1] + good[i+2:]
			if _, err := Parse(swapped); !errors.Is(err, ErrTypo) {
				t.Fatalf("swap at %d: %v", i, err)
			}
		}
	}
	for i := 1; i < len(good); i++ {
		if _, err := Parse(good[:i]); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut after %d: %v", i, err)
		}
	}
}

func TestUnmarshalText(t *testing.T) {
	good := sample(t).Reveal()
	var tok Token
	if err := tok.UnmarshalText([]byte(good)); err != nil || tok.Reveal() != good {
		t.Errorf("unmarshal: %v", err)
	}
	if err := tok.UnmarshalText([]byte("nonsense")); !errors.Is(err, ErrFormat) || tok.Reveal() != good {
		t.Errorf("a bad text changed the token: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	good := sample(f).Reveal()
	for _, s := range []string{good, strings.ToLower(good), good[:50], good[3:], good + "A", "KAIROS3-AAAA", "KAIROS2-", "", "hello", "KAIROS2-\xff", fullToken(f).Reveal()} {
		f.Add(s)
	}
	known := slices.Concat(part(tagNodes, 3), part(tagSeed, repeat(2, seedSize)...), part(tagDoors, repeat(3, doorSize)...))
	f.Add(string(known))
	f.Add(string(slices.Concat(known, part(tagPeers, append([]byte{9}, "a.b.c:123"...)...), part(0x20, 1), part(0x90, 1))))
	f.Fuzz(func(t *testing.T, text string) {
		roundTrip(t, text)
		// What lies behind the checksum, which fuzzing does not get past by itself.
		roundTrip(t, textOf([]byte(text)))
	})
}

func roundTrip(t *testing.T, text string) {
	t.Helper()
	tok, err := Parse(text)
	if err != nil {
		checkError(t, text, err)
		if !tok.IsZero() {
			t.Fatal("an error and a token")
		}
		return
	}
	if n := tok.Nodes(); n < 1 || n > MaxNodes {
		t.Fatalf("%d nodes", n)
	}
	again, err := Parse(tok.Reveal())
	if err != nil || again.Reveal() != tok.Reveal() {
		t.Fatalf("does not come back: %v", err)
	}
	if canonical := lookalikes.Replace(strings.ToUpper(strings.TrimSpace(text))[len(prefix):]); tok.Reveal() != prefix+canonical {
		t.Fatal("two texts of one token")
	}
}
