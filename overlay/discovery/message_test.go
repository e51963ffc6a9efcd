package discovery

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func mustBuild(t testing.TB, msg []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestMessages(t *testing.T) {
	ask, err := query(rand.Reader)
	ask = mustBuild(t, ask, err)
	if asks, sealed, err := parse(ask); !asks || sealed != nil || err != nil {
		t.Errorf("query: %v, %x, %v", asks, sealed, err)
	}
	blob := bytes.Repeat([]byte{7}, sealedSize)
	say, err := response(blob, rand.Reader)
	say = mustBuild(t, say, err)
	asks, sealed, err := parse(say)
	if asks || err != nil || len(sealed) != 1 || !bytes.Equal(sealed[0], blob) {
		t.Errorf("announcement: %v, %x, %v", asks, sealed, err)
	}
	if len(say) > 1400 {
		t.Errorf("%d bytes, want an Ethernet frame's", len(say))
	}
	for i := range say {
		if asks, sealed, err := parse(say[:i]); err == nil || asks || len(sealed) > 0 {
			t.Errorf("cut at %d: %v, %x", i, asks, sealed)
		}
	}
	short, err := response(blob[:sealedSize-1], rand.Reader)
	if _, sealed, err := parse(mustBuild(t, short, err)); !errors.Is(err, errForeign) {
		t.Errorf("something shorter: %x, %v", sealed, err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"_0123456789abcdef0123456789abcdef._udp.local.": true,
		"_0123456789ABCDEF0123456789abcdef._UDP.local.": true,
		"0123456789abcdef0123456789abcdef._udp.local.":  false,
		"_0123456789abcdef0123456789abcde._udp.local.":  false,
		"_0123456789abcdef0123456789abcdeg._udp.local.": false,
		"_ipp._tcp.local.": false,
		"x._0123456789abcdef0123456789abcdef._udp.local.": false,
		".": false,
	} {
		if got := isName(dnsmessage.MustNewName(name)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// An observer without the token sees nothing twice but what all machines of this kind
// have in common: no name, no ID, no port, no address, not even how many there are.
func TestNothingLasts(t *testing.T) {
	said := make(map[string]bool)
	note := func(name dnsmessage.Name, blob string) {
		t.Helper()
		if said[name.String()] || said[blob] {
			t.Errorf("%s or what goes with it is said twice", name)
		}
		said[name.String()] = true
		if blob != "" {
			said[blob] = true
		}
	}
	e := testEar(t, 1, clockAt(2026))
	few := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4171")}
	size := 0
	for i := range 20 {
		addrs := few
		for n := range i {
			addrs = append(addrs, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 4171))
		}
		msgs, err := e.say(addrs)
		if err != nil || len(msgs) != 1 {
			t.Fatalf("%d messages, %v", len(msgs), err)
		}
		if size == 0 {
			size = len(msgs[0])
		}
		if len(msgs[0]) != size {
			t.Errorf("%d addresses make a message of %d bytes, one makes %d", len(addrs), len(msgs[0]), size)
		}
		ip := few[0].Addr().As4()
		for what, secret := range map[string][]byte{
			"the ID": e.self[:8], "the address": ip[:], "the port": []byte("4171"), "the ID's text": []byte(e.self.String()), "its digits": []byte(hex.EncodeToString(e.self[:8])),
		} {
			if bytes.Contains(msgs[0], secret) {
				t.Errorf("%s can be read", what)
			}
		}
		var m dnsmessage.Message
		if err := m.Unpack(msgs[0]); err != nil || len(m.Answers) != 1 || len(m.Questions) != 0 {
			t.Fatalf("%+v, %v", m, err)
		}
		note(m.Answers[0].Header.Name, m.Answers[0].Body.(*dnsmessage.TXTResource).TXT[0][:24])
		ask, err := query(rand.Reader)
		if err := m.Unpack(mustBuild(t, ask, err)); err != nil {
			t.Fatal(err)
		}
		note(m.Questions[0].Name, "")
	}
}

// The work for one message is bounded, whatever is in it.
func TestManyRecords(t *testing.T) {
	build := func(n int, ours bool) []byte {
		b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true})
		if err := b.StartAnswers(); err != nil {
			t.Fatal(err)
		}
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("other.local."), Class: dnsmessage.ClassINET}
		for range n {
			if err := b.AResource(h, dnsmessage.AResource{}); err != nil {
				t.Fatal(err)
			}
		}
		h.Name = dnsmessage.MustNewName("_0123456789abcdef0123456789abcdef._udp.local.")
		blob := string(bytes.Repeat([]byte{7}, 212))
		for range 10 {
			if err := b.TXTResource(h, dnsmessage.TXTResource{TXT: []string{blob, blob}}); ours && err != nil {
				t.Fatal(err)
			}
		}
		msg, err := b.Finish()
		return mustBuild(t, msg, err)
	}
	if _, sealed, err := parse(build(maxRecords-1, true)); err != nil || len(sealed) != 1 {
		t.Errorf("the last record that is looked at: %d found, %v", len(sealed), err)
	}
	if _, sealed, err := parse(build(maxRecords, true)); !errors.Is(err, errForeign) {
		t.Errorf("beyond the last record: %d found, %v", len(sealed), err)
	}
	if _, sealed, err := parse(build(0, true)); err != nil || len(sealed) != maxSealed {
		t.Errorf("%d announcements in one message are looked at, %v; want %d", len(sealed), err, maxSealed)
	}
}

// FuzzParse checks that no packet of the local network does harm.
func FuzzParse(f *testing.F) {
	ask, err := query(rand.Reader)
	f.Add(mustBuild(f, ask, err))
	e := testEar(f, 1, clockAt(2026))
	say, err := e.say([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4171")})
	f.Add(mustBuild(f, slices.Concat(say...), err))
	f.Fuzz(func(t *testing.T, raw []byte) {
		asks, sealed, err := parse(raw)
		if err != nil && (asks || len(sealed) > 0) {
			t.Fatal("something out of a broken message")
		}
		for _, one := range sealed {
			if len(one) != sealedSize || len(sealed) > maxSealed {
				t.Fatalf("%d announcements, one of %d bytes", len(sealed), len(one))
			}
		}
	})
}
