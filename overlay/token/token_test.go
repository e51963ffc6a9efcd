package token

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// counting is the secret 00 01 02 ... of the tests.
func counting() io.Reader {
	raw := make([]byte, secretSize)
	for i := range raw {
		raw[i] = byte(i)
	}
	return bytes.NewReader(raw)
}

func sample(t testing.TB) Token {
	t.Helper()
	tok, err := Generate(counting(), 3)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// The text and the keys of a token are forever: a change here locks old nodes out.
func TestGolden(t *testing.T) {
	tok := sample(t)
	const text = "KAIROS1-0C0020G30G2GC1R81450P30D1R7H048J2CA1A5GQ30CHM6RW3MF1Z2XR6X6XASZS"
	if got := tok.Reveal(); got != text {
		t.Errorf("text %s, want %s", got, text)
	}
}

func TestRoundTrip(t *testing.T) {
	for n := 1; n <= MaxNodes; n++ {
		tok, err := Generate(nil, n)
		if err != nil {
			t.Fatal(err)
		}
		text := tok.Reveal()
		if len(text) != textLen || strings.Trim(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			t.Errorf("%d nodes: text is not %d characters of a QR code's alphabet", n, textLen)
		}
		back, err := Parse(text)
		if err != nil {
			t.Fatalf("%d nodes: %v", n, err)
		}
		if back.Nodes() != n || back.Quorum() != n/2+1 || back.Reveal() != text || !reflect.DeepEqual(back.Keys(), tok.Keys()) {
			t.Errorf("%d nodes: token came back as another one", n)
		}
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, n := range []int{-1, 0, MaxNodes + 1, 259} {
		if _, err := Generate(nil, n); !errors.Is(err, ErrNodes) {
			t.Errorf("%d nodes: %v, want ErrNodes", n, err)
		}
	}
	if _, err := Generate(iotest.ErrReader(io.ErrClosedPipe), 3); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("broken randomness: %v", err)
	}
	if _, err := Generate(bytes.NewReader(make([]byte, secretSize-1)), 3); err == nil {
		t.Error("short randomness was enough")
	}
}

func TestZeroToken(t *testing.T) {
	var zero Token
	if !zero.IsZero() || zero.Nodes() != 0 || zero.Quorum() != 0 || zero.Reveal() != "" {
		t.Error("the zero token is something")
	}
	defer func() {
		if recover() == nil {
			t.Error("the zero token has keys that everybody could compute")
		}
	}()
	zero.Keys()
}

func TestMillionTokens(t *testing.T) {
	const n = 1_000_000
	seen := make(map[[secretSize]byte]struct{}, n)
	for range n {
		tok, err := Generate(nil, DefaultNodes)
		if err != nil {
			t.Fatal(err)
		}
		seen[(*tok.secret).root] = struct{}{}
	}
	if len(seen) != n {
		t.Errorf("%d of %d tokens are duplicates", n-len(seen), n)
	}
}

// Nothing that holds a token or its keys may print it, by whatever way.
func TestRedaction(t *testing.T) {
	tok := sample(t)
	keys := tok.Keys()
	type exported struct {
		T  Token
		P  *Token
		K  Keys
		PK *Keys
	}
	type hidden struct{ t Token }
	values := map[string]any{
		"token": tok, "pointer": &tok, "keys": keys, "keys pointer": &keys,
		"exported": exported{tok, &tok, keys, &keys},
		"hidden":   hidden{tok}, "slice": []Token{tok}, "map": map[string]Token{"a": tok},
	}
	for name, v := range values {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v, fmt.Errorf("wrap: %w", fmt.Errorf("%v", v)))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		raw, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%s: marshal: %v", name, err)
		}
		out.Write(raw)
		for _, secret := range spellings(tok) {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%s: prints the secret as %q...", name, secret[:8])
			}
		}
	}
}

// spellings are ways in which the secret and one of its keys could show up.
func spellings(tok Token) []string {
	key := tok.Keys().Doors[0].Join.Bytes()
	var out []string
	for _, raw := range [][]byte{(*tok.secret).root[4:20], key[4:20]} {
		decimal := strings.Trim(fmt.Sprint(raw), "[]")
		out = append(out, string(raw), hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)),
			decimal, strings.ReplaceAll(decimal, " ", ","), strings.ReplaceAll(decimal, " ", ", "))
	}
	return append(out, tok.Reveal()[len(prefix):len(prefix)+16])
}

func BenchmarkGenerate(b *testing.B) {
	for b.Loop() {
		if _, err := Generate(nil, 3); err != nil {
			b.Fatal(err)
		}
	}
}
