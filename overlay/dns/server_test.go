package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) *Server {
	t.Helper()
	s, err := Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func testZone() *Zone {
	return BuildZone(Domain, []Host{
		{ID: id1, Name: "alpha", Addrs: []netip.Addr{v41, v61}},
		{ID: id2, Name: "beta", Addrs: []netip.Addr{v42}},
	})
}

func ask(t *testing.T, s *Server, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	r, _, err := c.Exchange(m, s.Addr().String())
	if err != nil {
		t.Fatalf("%s: %v", network, err)
	}
	return r
}

func TestServerAnswers(t *testing.T) {
	s := listen(t)
	if r := ask(t, s, "udp", question("alpha.kairos.internal.", dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("without a zone: %s", dns.RcodeToString[r.Rcode])
	}
	s.SetZone(testZone())
	for _, c := range []struct {
		name    string
		q       *dns.Msg
		rcode   int
		answers []string
	}{
		{"A", question("alpha.kairos.internal.", dns.TypeA), dns.RcodeSuccess, []string{"10.7.0.1"}},
		{"AAAA", question("alpha.kairos.internal.", dns.TypeAAAA), dns.RcodeSuccess, []string{"fd00::1"}},
		{"ANY", question("alpha.kairos.internal.", dns.TypeANY), dns.RcodeSuccess, []string{"10.7.0.1", "fd00::1"}},
		{"any case", question("ALPHA.Kairos.INTERNAL.", dns.TypeA), dns.RcodeSuccess, []string{"10.7.0.1"}},
		{"by ID", question(id2.String()+".kairos.internal.", dns.TypeA), dns.RcodeSuccess, []string{"10.7.0.2"}},
		{"no such type", question("beta.kairos.internal.", dns.TypeAAAA), dns.RcodeSuccess, nil},
		{"MX", question("beta.kairos.internal.", dns.TypeMX), dns.RcodeSuccess, nil},
		{"no such name", question("gamma.kairos.internal.", dns.TypeA), dns.RcodeNameError, nil},
		{"domain", question("kairos.internal.", dns.TypeA), dns.RcodeSuccess, nil},
		{"elsewhere", question("example.org.", dns.TypeA), dns.RcodeRefused, nil},
		{"a longer label", question("notkairos.internal.", dns.TypeA), dns.RcodeRefused, nil},
		{"root", question(".", dns.TypeNS), dns.RcodeRefused, nil},
		{"chaos", class(question("alpha.kairos.internal.", dns.TypeA), dns.ClassCHAOS), dns.RcodeRefused, nil},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(c.name+" "+network, func(t *testing.T) {
				r := ask(t, s, network, c.q.Copy())
				if r.Rcode != c.rcode || r.RecursionAvailable || r.Authoritative == (c.rcode == dns.RcodeRefused) {
					t.Errorf("answer: %v", r)
				}
				var got []string
				for _, rr := range r.Answer {
					if rr.Header().Ttl > ttl {
						t.Errorf("TTL %d", rr.Header().Ttl)
					}
					got = append(got, dns.Field(rr, 1))
				}
				if fmt.Sprint(got) != fmt.Sprint(c.answers) {
					t.Errorf("answers %v, want %v", got, c.answers)
				}
				if soa := len(r.Ns) == 1 && r.Ns[0].Header().Rrtype == dns.TypeSOA; soa != (c.rcode != dns.RcodeRefused && len(got) == 0) {
					t.Errorf("authority: %v", r.Ns)
				}
			})
		}
	}
	if r := ask(t, s, "udp", question("kairos.internal.", dns.TypeSOA)); len(r.Answer) != 1 {
		t.Errorf("SOA: %v", r)
	}
}

func TestServerTruncatesUDP(t *testing.T) {
	var many []netip.Addr
	for i := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{10, 7, 0, byte(i)}))
	}
	s := listen(t)
	s.SetZone(BuildZone(Domain, []Host{{ID: identity.ID{1}, Name: "alpha", Addrs: many}}))
	q := question("alpha.kairos.internal.", dns.TypeA)
	if r := ask(t, s, "udp", q); !r.Truncated || size(r) > dns.MinMsgSize {
		t.Errorf("%d bytes, truncated %v", size(r), r.Truncated)
	}
	if r := ask(t, s, "tcp", q); r.Truncated || len(r.Answer) != 100 {
		t.Errorf("%d answers by TCP", len(r.Answer))
	}
	q.SetEdns0(4096, false)
	if r := ask(t, s, "udp", q); !r.Truncated || size(r) > udpSize || size(r) < 600 || r.IsEdns0() == nil {
		t.Errorf("EDNS: %d bytes, truncated %v", size(r), r.Truncated)
	}
	q.IsEdns0().SetVersion(1)
	if r := ask(t, s, "udp", q); r.Rcode != dns.RcodeBadVers {
		t.Errorf("EDNS version 1: %v", dns.RcodeToString[r.Rcode])
	}
}

func TestListenOnTakenPort(t *testing.T) {
	s := listen(t)
	if second, err := Listen(context.Background(), s.Addr(), nil); err == nil {
		_ = second.Close()
		t.Error("two servers on one port")
	}
}

// size is how long m was on the wire.
func size(m *dns.Msg) int {
	m.Compress = true
	return m.Len()
}

func question(name string, kind uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, kind) }

func class(m *dns.Msg, c uint16) *dns.Msg {
	m.Question[0].Qclass = c
	return m
}
