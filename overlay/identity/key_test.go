package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
)

// testKey is the n-th of a sequence of fixed keys.
func testKey(t testing.TB, n byte) Key {
	t.Helper()
	key, err := Generate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestGenerate(t *testing.T) {
	a, err := Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.ID() == b.ID() || a.ID().IsZero() {
		t.Error("two keys are one")
	}
	// RFC 8032 section 7.1, test 1.
	seed, err := hex.DecodeString("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Generate(bytes.NewReader(seed))
	if err != nil {
		t.Fatal(err)
	}
	id := c.ID()
	if got := hex.EncodeToString(id[:]); got != "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" {
		t.Errorf("id %s is not the one of RFC 8032", got)
	}
	if _, err := Generate(iotest.ErrReader(io.ErrClosedPipe)); err == nil {
		t.Error("made a key without randomness")
	}
}

func TestSignVerify(t *testing.T) {
	key, other := testKey(t, 1), testKey(t, 2)
	msg := []byte("message")
	sig := key.Sign("agent-vote", msg)
	flipped := bytes.Clone(sig)
	flipped[0] ^= 1
	for _, c := range []struct {
		name    string
		id      ID
		context string
		msg     []byte
		sig     []byte
		want    bool
	}{
		{"as signed", key.ID(), "agent-vote", msg, sig, true},
		{"another author", other.ID(), "agent-vote", msg, sig, false},
		{"another context", key.ID(), "agent-votes", msg, sig, false},
		{"context moved into the message", key.ID(), "agent", []byte("-vote\x00message"), sig, false},
		{"context grown into the message", key.ID(), "agent", []byte("-votemessage"), sig, false},
		{"another message", key.ID(), "agent-vote", []byte("massage"), sig, false},
		{"flipped bit", key.ID(), "agent-vote", msg, flipped, false},
		{"no signature", key.ID(), "agent-vote", msg, nil, false},
		{"long signature", key.ID(), "agent-vote", msg, append(bytes.Clone(sig), 0), false},
		{"zero id", ID{}, "agent-vote", msg, sig, false},
		{"empty context", key.ID(), "", msg, sig, false},
	} {
		if got := Verify(c.id, c.context, c.msg, c.sig); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	for _, context := range []string{"", "A", "a\x00b", "a b", strings.Repeat("a", 65), "é"} {
		if ValidContext(context) || key.Sign(context, msg) != nil {
			t.Errorf("signs in context %q", context)
		}
	}
}

// The zero ID is a point of small order: this signature would verify for a
// quarter of all messages if Verify did not refuse it.
func TestZeroIDVerifiesNothing(t *testing.T) {
	identityPoint := make([]byte, 64)
	identityPoint[0] = 1
	for i := range 64 {
		if Verify(ID{}, "x", []byte{byte(i)}, identityPoint) {
			t.Fatal("anybody can sign for the zero id")
		}
	}
}

func TestZeroKey(t *testing.T) {
	var zero Key
	if !zero.IsZero() || !zero.ID().IsZero() || zero.Private() != nil || zero.Sign("x", nil) != nil {
		t.Error("the zero key is something")
	}
}

func TestPrivateIsACopy(t *testing.T) {
	key := testKey(t, 1)
	clear(key.Private())
	if sig := key.Sign("x", nil); !Verify(key.ID(), "x", nil, sig) {
		t.Error("a caller destroyed the key")
	}
}

// Nothing that holds a key may print it, by whatever way.
func TestKeyRedaction(t *testing.T) {
	var raw [32]byte
	for i := range raw {
		raw[i] = byte(i + 100)
	}
	key, err := Generate(bytes.NewReader(raw[:]))
	if err != nil {
		t.Fatal(err)
	}
	type hidden struct{ k Key }
	values := map[string]any{"key": key, "pointer": &key, "hidden": hidden{key}, "hidden pointer": &hidden{key}, "slice": []Key{key}}
	part := raw[4:20]
	decimal := strings.Trim(fmt.Sprint(part), "[]")
	secrets := []string{string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)), decimal, strings.ReplaceAll(decimal, " ", ",")}
	for name, v := range values {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%c", "%U", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		marshalled, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%s: marshal: %v", name, err)
		}
		out.Write(marshalled)
		for _, secret := range secrets {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%s: prints the key", name)
			}
		}
	}
}

func TestIDText(t *testing.T) {
	id := testKey(t, 1).ID()
	text := id.String()
	back, err := ParseID(text)
	if err != nil || back != id {
		t.Fatalf("does not come back: %v", err)
	}
	if id.Short() != text[:6] {
		t.Error("short form is not the beginning")
	}
	for _, bad := range []string{"", text[1:], text + "a", strings.ToUpper(text), text[:51] + "b", text[:10] + "1" + text[11:], text[:20] + "\n" + text[20:]} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q is an id", bad)
		}
	}
	raw, err := json.Marshal(map[ID]ID{id: id})
	if err != nil {
		t.Fatal(err)
	}
	var m map[ID]ID
	if err := json.Unmarshal(raw, &m); err != nil || m[id] != id {
		t.Errorf("JSON: %v", err)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(testKey(f, 1).ID().String())
	f.Add("")
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Fatalf("%q has two spellings", s)
		}
	})
}
