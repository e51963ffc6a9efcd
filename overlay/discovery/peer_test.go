package discovery

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

const someID = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"

func TestParsePeer(t *testing.T) {
	for _, tc := range []struct {
		text, want string
		id         bool
	}{
		{"192.0.2.1", "192.0.2.1:4171", false},
		{"192.0.2.1:5000", "192.0.2.1:5000", false},
		{" host.example:5000 ", "host.example:5000", false},
		{"host.example", "host.example:4171", false},
		{"2001:db8::1", "[2001:db8::1]:4171", false},
		{"[2001:db8::1]:5000", "[2001:db8::1]:5000", false},
		{"/ip4/192.0.2.1/udp/4171/quic-v1", "192.0.2.1:4171", false},
		{"/ip4/192.0.2.1/tcp/5000", "192.0.2.1:5000", false},
		{"/ip6/2001:db8::1/tcp/5000", "[2001:db8::1]:5000", false},
		{"/dns4/host.example/udp/4171/quic-v1/p2p/" + someID, "host.example:4171", true},
	} {
		t.Run(tc.text, func(t *testing.T) {
			p, err := ParsePeer(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if p.String() != tc.want || p.ID.IsZero() == tc.id {
				t.Errorf("got %s (ID %v), want %s", p, !p.ID.IsZero(), tc.want)
			}
		})
	}
	for _, bad := range []string{
		"", " ", ":", ":4171", "host:", "host:0", "host:65536", "host:http", "a b:1", "user@host:1", "http://host:1",
		"2001:db8::1:x", "[2001:db8::1", "/", "/ip4/192.0.2.1", "/tcp/1", "/ip4/192.0.2.1/udp/4171/webrtc-direct",
		"/ip4/192.0.2.1/tcp/1/p2p/" + someID + "/p2p-circuit", "/ip4/192.0.2.1/tcp/0",
		"fe80::1%eth0", "[fe80::1%eth0]:1", "[fe80::1%lo/ip6/::1/tcp/22]:4171", "/dns4/fe80::1%lo/tcp/1", "/ip6zone/lo/ip6/fe80::1/tcp/1",
		"/dns/a%b/tcp/1", "/dns6/::1%lo/udp/1/quic-v1",
		"/ip4/192.0.2.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", // an RSA key's
	} {
		t.Run("not "+bad, func(t *testing.T) {
			if p, err := ParsePeer(bad); !errors.Is(err, ErrPeer) {
				t.Errorf("got %+v, %v; want ErrPeer", p, err)
			}
		})
	}
}

func FuzzParsePeer(f *testing.F) {
	for _, s := range []string{"192.0.2.1:1", "[::1]:2", "host", "/ip4/1.2.3.4/udp/1/quic-v1/p2p/" + someID} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePeer(s)
		if err != nil {
			return
		}
		if p.Host == "" || p.Port == 0 {
			t.Fatalf("%q: accepted as %+v", s, p)
		}
		again, err := ParsePeer(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("%q: reads as %s, which reads as %s (%v)", s, p, again, err)
		}
	})
}

type fakeResolver map[string][]netip.Addr

func (r fakeResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if addrs, ok := r[host]; ok {
		return addrs, nil
	}
	return nil, errors.New("no such host")
}

func TestResolve(t *testing.T) {
	many := make([]netip.Addr, 100)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
	}
	r := fakeResolver{"host": {netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, "many": many}
	got, err := Peer{Host: "host", Port: 5}.Resolve(t.Context(), r)
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5"), netip.MustParseAddrPort("[2001:db8::1]:5")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	// What a name resolves to means the same on every machine, and comes once.
	r["zoned"] = []netip.Addr{netip.MustParseAddr("fe80::1%lo"), many[1], many[1], netip.MustParseAddr("::ffff:192.0.2.1"), {}}
	if got, err := (Peer{Host: "zoned", Port: 5}).Resolve(t.Context(), r); err != nil || !slices.Equal(got, want[:1]) {
		t.Errorf("got %v, %v; want %v", got, err, want[:1])
	}
	if got, err := (Peer{Host: "fe80::1%lo", Port: 5}).Resolve(t.Context(), r); len(got) != 0 {
		t.Errorf("a zone resolved to %v, %v", got, err)
	}
	if got, err := (Peer{Host: "many", Port: 5}).Resolve(t.Context(), r); err != nil || len(got) != maxResolved {
		t.Errorf("%d addresses of a name tried (%v)", len(got), err)
	}
	if _, err := (Peer{Host: "nobody", Port: 5}).Resolve(t.Context(), r); err == nil {
		t.Error("an unknown name resolved")
	}
}

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		away     time.Duration
		min, max time.Duration
	}{
		{0, 375 * time.Millisecond, 500 * time.Millisecond},
		{8 * time.Second, 750 * time.Millisecond, time.Second},
		{time.Minute, 5625 * time.Millisecond, 7500 * time.Millisecond}, // a minute's partition heals within 10 s
		{24 * time.Hour, 90 * time.Second, 2 * time.Minute},
	} {
		for _, jitter := range []float64{0, 0.5, 0.999} {
			if got := Backoff(tc.away, jitter); got < tc.min || got > tc.max {
				t.Errorf("away %s, jitter %v: %s, want from %s to %s", tc.away, jitter, got, tc.min, tc.max)
			}
		}
		if Backoff(tc.away, 0) == Backoff(tc.away, 0.9) {
			t.Error("no jitter")
		}
	}
}
