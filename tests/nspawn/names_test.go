package nspawn

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// testNames: a pod that wants the machine's resolver knows the mesh from the beginning,
// and the world as soon as the machine does: here long after k3s was started. A router may
// tell of a name server by its link-local address alone, which means nothing in a pod.
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
	here, there := r.below(m), r.below(r.machine(r.worker()))
	for name, at := range map[string]netip.Addr{"later.example": there.v4, "later-by-link-local.example": there.linkLocal} {
		const address = "192.0.2.53"
		if out, err := cluster.Kubectl(r.ctx, m, "exec", "names", "--", "/echo", "lookup", name); err == nil {
			r.Errorf("the world is known before there is a name server: %s", out)
		}
		r.exec(m.Name(), "resolvectl", "dns", here.name, r.nameServer(at, name, address))
		r.eventually(time.Minute, "the pod knows "+name, func() error {
			got, err := cluster.Kubectl(r.ctx, m, "exec", "names", "--", "/echo", "lookup", name)
			if err == nil && strings.TrimSpace(got) != address {
				err = fmt.Errorf("the answer is %q", got)
			}
			return err
		})
		r.exec(m.Name(), "resolvectl", "revert", here.name)
	}
	r.kubectl("delete", "pod", "names")
}

// card is a machine's on the network below.
type card struct {
	name          string
	v4, linkLocal netip.Addr // the latter has its zone
}

func (r *rig) below(m *lab.Machine) (c card) {
	r.Helper()
	err := m.InNet(func() error {
		all, err := net.Interfaces()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(i net.Interface) bool { return strings.HasPrefix(i.Name, "lan") })
		if i < 0 {
			return fmt.Errorf("none is among %v", all)
		}
		c.name = all[i].Name
		addrs, err := all[i].Addrs()
		for _, a := range addrs {
			switch p, _ := netip.ParsePrefix(a.String()); { // the kernel's words
			case p.Addr().Is4():
				c.v4 = p.Addr()
			case p.Addr().IsLinkLocalUnicast():
				c.linkLocal = p.Addr().WithZone(c.name)
			}
		}
		return err
	})
	if err != nil || !c.v4.IsValid() || !c.linkLocal.IsValid() {
		r.Fatalf("look for the card of %s: %+v, %v", m.Name(), c, err)
	}
	return c
}

// nameServer serves one name at that address of the worker, and returns where that is for
// others.
func (r *rig) nameServer(at netip.Addr, name, address string) string {
	r.Helper()
	var packets net.PacketConn
	err := r.machine(r.worker()).InNet(func() (err error) {
		packets, err = net.ListenPacket("udp", netip.AddrPortFrom(at, 0).String())
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
	port := packets.LocalAddr().(*net.UDPAddr).Port
	return netip.AddrPortFrom(at.WithZone(""), uint16(port)).String()
}
