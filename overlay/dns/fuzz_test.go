package dns

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/kairos-io/kairos/overlay/identity"
)

// FuzzReply asks what any process of this machine may ask. Every answer can be
// packed, and nothing outside the zone is answered.
func FuzzReply(f *testing.F) {
	for _, name := range []string{"alpha.kairos.internal.", "kairos.internal.", "example.org.", "."} {
		raw, err := new(dns.Msg).SetQuestion(name, dns.TypeANY).SetEdns0(4096, true).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	s := &Server{}
	s.SetZone(BuildZone(Domain, []Host{{ID: identity.ID{1}, Name: "alpha", Addrs: []netip.Addr{
		netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00::1")}}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		q := new(dns.Msg)
		if q.Unpack(raw) != nil {
			return
		}
		m := s.reply(q)
		if _, err := m.Pack(); err != nil {
			t.Errorf("%v cannot be sent: %v", m, err)
		}
		if len(m.Answer) > 0 && !dns.IsSubDomain(Domain+".", dns.CanonicalName(q.Question[0].Name)) {
			t.Errorf("answered for %s", q.Question[0].Name)
		}
	})
}
