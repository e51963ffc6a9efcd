package discovery

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

const service = "_0123456789abcd"

func someone() announcement {
	return announcement{
		ID: identity.ID{1, 2, 3}, Port: 4171,
		Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4171"), netip.MustParseAddrPort("[2001:db8::1]:4171")},
	}
}

func mustBuild(t testing.TB, msg []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestServiceName(t *testing.T) {
	a, b := ServiceName([32]byte{1}), ServiceName([32]byte{2})
	if a == b || len(a) > 16 || !strings.HasPrefix(a, "_") {
		t.Errorf("service names %s and %s", a, b)
	}
}

func TestMessages(t *testing.T) {
	ask, err := query(service)
	ask = mustBuild(t, ask, err)
	if asks, found, err := parse(service, ask); !asks || found != nil || err != nil {
		t.Errorf("query: %v, %v, %v", asks, found, err)
	}
	if asks, _, err := parse("_other", ask); asks || !errors.Is(err, errForeign) {
		t.Errorf("another network's query: %v, %v", asks, err)
	}
	say, err := response(service, someone())
	say = mustBuild(t, say, err)
	asks, found, err := parse(service, say)
	if asks || err != nil || !reflect.DeepEqual(found, []announcement{someone()}) {
		t.Errorf("announcement: %v, %+v, %v", asks, found, err)
	}
	if _, found, err := parse("_other", say); len(found) != 0 || !errors.Is(err, errForeign) {
		t.Errorf("another network's announcement: %+v, %v", found, err)
	}
	for i := range say {
		if _, found, err := parse(service, say[:i]); err == nil && len(found) > 0 {
			t.Errorf("cut at %d: %+v", i, found)
		}
	}
}

func TestAnnouncementFitsAFrame(t *testing.T) {
	a := someone()
	for range 100 {
		a.Addrs = append(a.Addrs, netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:65535"))
	}
	msg, err := response(service, a)
	if err != nil || len(msg) > 1400 {
		t.Errorf("%d bytes (%v), want an Ethernet frame's", len(msg), err)
	}
}

func TestAnnounced(t *testing.T) {
	id := identity.ID{1, 2, 3}.String()
	for _, tc := range []struct {
		name string
		txt  []string
		ok   bool
	}{
		{"all", []string{"id=" + id, "p=1", "a=192.0.2.1:1"}, true},
		{"unknown keys", []string{"id=" + id, "x=1", "", "="}, true},
		{"a broken address", []string{"id=" + id, "a=nowhere"}, true},
		{"nothing", nil, false},
		{"no id", []string{"p=1"}, false},
		{"a broken id", []string{"id=xyz"}, false},
		{"a broken port", []string{"id=" + id, "p=70000"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if a, ok := announced(tc.txt); ok != tc.ok {
				t.Errorf("got %+v, %v; want %v", a, ok, tc.ok)
			}
		})
	}
}

// FuzzParse checks that no packet of the local network does harm.
func FuzzParse(f *testing.F) {
	ask, err := query(service)
	f.Add(mustBuild(f, ask, err))
	say, err := response(service, someone())
	f.Add(mustBuild(f, say, err))
	f.Fuzz(func(t *testing.T, raw []byte) {
		asks, found, err := parse(service, raw)
		if err != nil && (asks || len(found) > 0) {
			t.Fatal("something out of a broken message")
		}
		for _, a := range found {
			if a.ID.IsZero() || len(a.Addrs) > maxListed {
				t.Fatalf("announced %+v", a)
			}
		}
	})
}
