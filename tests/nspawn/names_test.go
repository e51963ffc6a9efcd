package nspawn

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// testNames: a pod that wants the machine's resolver knows the mesh from the beginning,
// and the world as soon as the machine does: here long after k3s was started.
func (r *rig) testNames() {
	m := r.machine(r.server())
	manifest := filepath.Join(r.Lab.Dir(), "names.yaml")
	pod := strings.Replace(r.pod("names", m.Name()), "  nodeName:", "  dnsPolicy: Default\n  nodeName:", 1)
	if err := os.WriteFile(manifest, []byte(pod), 0o600); err != nil {
		r.Fatal(err)
	}
	r.kubectl("apply", "-f", manifest)
	r.kubectl("wait", "--for=condition=Ready", "--timeout=90s", "pod/names")
	worker := cluster.Look(r.ctx, r.machine(r.worker()))
	if got := r.kubectl("exec", "names", "--", "/echo", "lookup", worker.Name+".kairos.internal"); !strings.Contains(got, worker.Address) {
		r.Errorf("%s has the addresses %q, want %s", worker.Name, got, worker.Address)
	}
	const name, address = "later.example", "192.0.2.53"
	if out, err := cluster.Kubectl(r.ctx, m, "exec", "names", "--", "/echo", "lookup", name); err == nil {
		r.Errorf("the world is known before there is a name server: %s", out)
	}
	card, _ := r.below(m)
	r.exec(m.Name(), "resolvectl", "dns", card, r.nameServer(name, address))
	r.eventually(time.Minute, "the pod knows the world", func() error {
		got, err := cluster.Kubectl(r.ctx, m, "exec", "names", "--", "/echo", "lookup", name)
		if err == nil && strings.TrimSpace(got) != address {
			err = fmt.Errorf("the answer is %q", got)
		}
		return err
	})
	r.exec(m.Name(), "resolvectl", "revert", card)
	r.kubectl("delete", "pod", "names")
}

// below is a machine's card and address on the network below.
func (r *rig) below(m *lab.Machine) (card string, addr netip.Addr) {
	r.Helper()
	err := m.InNet(func() error {
		cards, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, c := range cards {
			addrs, err := c.Addrs()
			if err != nil {
				return err
			}
			for _, a := range addrs {
				p, err := netip.ParsePrefix(a.String())
				if strings.HasPrefix(c.Name, "lan") && err == nil && p.Addr().Is4() {
					card, addr = c.Name, p.Addr()
					return nil
				}
			}
		}
		return fmt.Errorf("none with an address is among %v", cards)
	})
	if err != nil {
		r.Fatalf("look for the card of %s: %v", m.Name(), err)
	}
	return card, addr
}

// nameServer serves one name on the network below, from the worker's place, and returns
// where that is.
func (r *rig) nameServer(name, address string) string {
	r.Helper()
	m := r.machine(r.worker())
	_, addr := r.below(m)
	var packets net.PacketConn
	err := m.InNet(func() (err error) {
		packets, err = net.ListenPacket("udp4", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	s := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Name == dns.Fqdn(name) && q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.ParseIP(address)}}
		}
		_ = w.WriteMsg(m) // whoever asked may be gone
	})}
	go func() { _ = s.ActivateAndServe() }() // until it is shut down
	r.Cleanup(func() { _ = s.Shutdown() })
	return packets.LocalAddr().String()
}
