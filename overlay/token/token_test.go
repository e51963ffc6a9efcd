package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kairos-io/kairos/overlay/secret"
)

// counting is the randomness 00 01 02 ... of the tests.
func counting() io.Reader {
	raw := make([]byte, seedSize+secretSize)
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

// ownerID is a public key of the tests.
var ownerID = [32]byte{1, 2, 3}

// fullToken has everything that a token can have, of this version and of a later one.
func fullToken(t testing.TB) Token {
	t.Helper()
	tok, err := sample(t).WithOwner(PinOf(ownerID)).WithPeers([]string{"node.example:4171", "192.0.2.1:1", "[2001:db8::1]:65535"})
	if err != nil {
		t.Fatal(err)
	}
	c := **tok.secret
	c.doors = []doorSecret{{gen: 7, secret: sha256.Sum256([]byte("a newer door"))}, c.doors[0]}
	c.unknown = []byte{0x20, 2, 0xab, 0xcd, 0x7f, 0}
	return wrap(&c)
}

// The text and the keys of a token are forever: a change here locks old nodes out.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name, text string
		tok        Token
	}{
		{"plain", "KAIROS2-1M0G20R2200020G30G2GC1R81450P30D1R7G6881208H44RM2MB1E60S38DHR78Y3WG228H34GJJC9S854N2PB1D5RQG1H4W7MBCQ4DR", sample(t)},
		{"owner", "KAIROS2-240G20R2200020G30G2GC1R81450P30D1R7G6881208H44RM2MB1E60S38DHR78Y3WG228H34GJJC9S854N2PB1D5RQG840WPEBG4Z01GS40BFMYBXKZAGEH00000WWFYZVXWCJP", sample(t).WithOwner(PinOf(ownerID))},
		{"everything", "KAIROS2-4C0G20R2200020G30G2GC1R81450P30D1R7G6GG79Y4BFK8ZCY7QYRER8JPS378SYC6VY608NVC5SBY0RH3XZWSQJHR0240H289H858P2WC1J6GV3GEHW7S044H269154RKJGA9A5CP2TBHF0G81SCWQ09Y031J80PZ9WQV7YN0X219J25Q6YS355SJQGRBDE1P6AEHM64VK22SH74S2WC1E68Q32EHH2DDK4C1G64X68RHR78X32Q9T6RTKACSN401AQKBZ00000QSFABKETJ6R", fullToken(t)},
	} {
		if got := c.tok.Reveal(); got != c.text {
			t.Errorf("%s: text %s, want %s", c.name, got, c.text)
		}
	}
	for name, key := range all(sample(t).Keys()) {
		if got := hex.EncodeToString(key[:]); got != goldenKeys[name] {
			t.Errorf("%s key %s, want %s", name, got, goldenKeys[name])
		}
	}
}

// goldenKeys are those of the sample.
var goldenKeys = map[string]string{
	"address":      "56f6d52657af3ba340a5f6a8bef4221b0e6d9b4cfc568409572c73ce22256f4c",
	"genesis":      "92f9d8c1c6919f768773796326ed34d580dba8c1e0d5e7e604a9979250372b1d",
	"id":           "6bcb38252fed09fb2f992660ec13a39bb87ab6eb44df069a2f4b3934e64ad232",
	"frame0":       "e462a3941b2b7c0e8c8d3989809f58d6e334ae731882a041f1aa222e93cd1000",
	"knock0":       "122439efdde59fbcb2fe8794d3e475f5c77e837344bc9fafe58b15d181b0fc72",
	"mdns0":        "bd8f615cd7a336f562525a26eabe050895f398894a8056ac48fb6544ce980957",
	"outside0":     "f10af37a4a65184d7a030cb6ef8b73c8a836fb96d7d1266246e72c453db22d18",
	"join0":        "dd8025a7e904cc42b2bca06f2c8e643ffebf057c03d1823328ac0607821f72eb",
	"commit-find0": "53cc1de73aef158ce8b6250d1b4ee7b65798e13bb3a740061592bf94c5b5f7e4",
	"commit-join0": "0944ac927f7541c2be03269afe9303c9fc6409c9836535a46bc40f0d122ea2b0",
}

func TestRoundTrip(t *testing.T) {
	for n := 1; n <= MaxNodes; n++ {
		tok, err := Generate(nil, n)
		if err != nil {
			t.Fatal(err)
		}
		text := tok.Reveal()
		if len(text) != 112 || strings.Trim(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			t.Errorf("%d nodes: text is not 112 characters of a QR code's alphabet", n)
		}
		if owned := tok.WithOwner(PinOf(ownerID)).Reveal(); len(owned) != 144 {
			t.Errorf("%d nodes: %d characters with an owner, want 144", n, len(owned))
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
	if _, err := Generate(bytes.NewReader(make([]byte, seedSize+secretSize-1)), 3); err == nil {
		t.Error("short randomness was enough")
	}
}

func TestZeroToken(t *testing.T) {
	var zero Token
	if !zero.IsZero() || zero.Nodes() != 0 || zero.Quorum() != 0 || zero.Reveal() != "" {
		t.Error("the zero token is something")
	}
	if _, ok := zero.Owner(); ok || zero.Peers() != nil {
		t.Error("the zero token has an owner or peers")
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
		seen[(*tok.secret).doors[0].secret] = struct{}{}
	}
	if len(seen) != n {
		t.Errorf("%d of %d tokens are duplicates", n-len(seen), n)
	}
}

// Nothing that holds a token or its keys may print it, by whatever way.
func TestRedaction(t *testing.T) {
	tok := fullToken(t)
	keys := tok.Keys()
	type exported struct {
		T  Token
		P  *Token
		K  Keys
		PK *Keys
		D  Doors
		F  Find
	}
	type hidden struct {
		t Token
		k Keys
		p *Keys
		d Doors
		o Door
		f Find
		m map[string]Door
	}
	values := map[string]any{
		"token": tok, "pointer": &tok, "keys": keys, "keys pointer": &keys,
		"doors": keys.Doors, "door": keys.Doors[0], "door pointer": &keys.Doors[1], "find": keys.Doors[0].Find,
		"exported": exported{tok, &tok, keys, &keys, keys.Doors, keys.Doors[1].Find},
		"hidden":   hidden{tok, keys, &keys, keys.Doors, keys.Doors[0], keys.Doors[1].Find, map[string]Door{"a": keys.Doors[0]}},
		"slice":    []Token{tok}, "map": map[string]Token{"a": tok}, "slice of keys": []Keys{keys}, "any": []any{tok, keys},
	}
	// What the test looks for is what the content would show.
	if !printsSecret(t, tok, fmt.Sprint(**tok.secret)) {
		t.Error("the test does not recognise a secret")
	}
	for name, v := range values {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t", "%e", "%p", "%T"} {
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
		if printsSecret(t, tok, out.String()) {
			t.Errorf("%s: prints a secret", name)
		}
	}
}

// printsSecret reports whether a text shows a part of a token or of its keys.
func printsSecret(t *testing.T, tok Token, text string) bool {
	t.Helper()
	c := **tok.secret
	raws := [][]byte{c.seed[4:12]}
	for _, d := range c.doors {
		raws = append(raws, d.secret[4:12])
	}
	keys := tok.Keys()
	raws = append(raws, keys.Address.Bytes()[4:12])
	for _, d := range keys.Doors {
		for _, k := range []secret.Key{d.Join, d.Find.Frame, d.Find.Knock, d.Find.MDNS, d.Find.Outside} {
			raws = append(raws, k.Bytes()[4:12])
		}
	}
	shown := []string{tok.Reveal()[len(prefix)+8 : len(prefix)+24]}
	for _, raw := range raws {
		decimal := strings.Trim(fmt.Sprint(raw), "[]")
		shown = append(shown, string(raw), hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)),
			base64.StdEncoding.EncodeToString(raw)[:10],
			decimal, strings.ReplaceAll(decimal, " ", ","), strings.ReplaceAll(decimal, " ", ", "))
	}
	return slices.ContainsFunc(shown, func(s string) bool { return strings.Contains(text, s) })
}

func BenchmarkGenerate(b *testing.B) {
	for b.Loop() {
		if _, err := Generate(nil, 3); err != nil {
			b.Fatal(err)
		}
	}
}
