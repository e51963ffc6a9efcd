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
	card := strings.TrimSpace(r.exec(m.Name(), "sh", "-c", "cd /sys/class/net && ls -d lan*"))
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

// nameServer serves one name on the network below, from the worker's place, and returns
// where that is.
func (r *rig) nameServer(name, address string) string {
	r.Helper()
	var packets net.PacketConn
	err := r.machine(r.worker()).InNet(func() error {
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
				if err != nil {
					return err
				}
				if strings.HasPrefix(c.Name, "lan") && p.Addr().Is4() {
					packets, err = net.ListenPacket("udp4", netip.AddrPortFrom(p.Addr(), 0).String())
					return err
				}
			}
		}
		return fmt.Errorf("no card of the network below among %v", cards)
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
