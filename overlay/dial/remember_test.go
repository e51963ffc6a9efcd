package dial

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

var (
	stranger = netip.MustParseAddr("192.0.2.66")
	honest   = netip.MustParseAddr("192.0.2.7")
)

// flood has a stranger make members up, all through a time.
func (w *world) flood(d time.Duration, perSecond int) {
	for i := range int(d.Seconds() * float64(perSecond)) {
		at := w.now + time.Duration(i)*time.Second/time.Duration(perSecond)
		w.number++
		n := w.number
		w.after(at-w.now, func() {
			w.s.Hear(w.now, Rumour{
				Member: identity.ID{7, byte(n), byte(n >> 8), byte(n >> 16)},
				Addrs:  []netip.AddrPort{addr(200_000 + int(n%50_000)), addr(300_000 + int(n%50_000))}, Source: stranger,
			})
		})
	}
}

// A stranger that makes up a thousand members a second holds up neither a member
// that has a record nor one that is only heard of; and nothing is left of it.
func TestFloodOfRumours(t *testing.T) {
	w := newWorld(t, nil)
	w.flood(30*time.Second, 1000)
	w.run(10 * time.Second)
	w.check()
	begin := w.now
	w.put(1, addr(1))
	w.put(2, addr(2))
	w.s.Learn(w.now, member(1), []netip.AddrPort{addr(1)})
	w.s.Hear(w.now, Rumour{Member: member(2), Addrs: []netip.AddrPort{addr(2)}, Source: honest})
	w.run(10 * time.Second)
	w.check()
	if at, ok := w.upSince[member(1)]; !ok || at-begin > 100*time.Millisecond {
		t.Errorf("a member: connected %v after %s", ok, at-begin)
	}
	if at, ok := w.upSince[member(2)]; !ok || at-begin > 5*time.Second {
		t.Errorf("a member that is heard of: connected %v after %s", ok, at-begin)
	}
	if limit := w.s.limits.Strangers + 4; w.most > limit {
		t.Errorf("%d dials at once, want at most %d", w.most, limit)
	}
	w.run(5 * time.Minute)
	if c := w.s.Counts(); c.Rumours != 0 || c.Members != 2 || c.Dials != 0 {
		t.Errorf("left: %+v", c)
	}
}

// Announcements without an address that may be dialled are no rumours.
func TestEmptyRumours(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 1000 {
		w.s.Hear(0, Rumour{Member: member(i), Source: stranger})
	}
	w.s.Hear(0, Rumour{Member: self, Addrs: []netip.AddrPort{addr(1)}})
	if c := w.s.Counts(); c.Members != 0 {
		t.Errorf("kept %+v", c)
	}
}

// A stranger that announces members which are gone has them dialled with its own
// slots, not with those of members.
func TestForgedAnnouncements(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 200 {
		w.s.Learn(0, member(100+i), []netip.AddrPort{addr(100 + i)})
	}
	w.run(2 * time.Hour)
	count := len(w.log)
	w.run(10 * time.Minute)
	usual := len(w.log) - count
	for i := range 10 * 60 * 100 {
		w.after(time.Duration(i)*10*time.Millisecond, func() {
			w.s.Hear(w.now, Rumour{Member: member(100 + i%200), Addrs: []netip.AddrPort{addr(100 + i%200), addr(100_000 + i)}, Source: stranger})
		})
	}
	count = len(w.log)
	w.run(5 * time.Minute)
	begin := w.now
	w.put(1, addr(1))
	w.s.Learn(w.now, member(1), []netip.AddrPort{addr(1)})
	w.run(5 * time.Minute)
	of, strangers := 0, 0
	for _, d := range w.log[count:] {
		if d.Timeout == w.s.timing.Stranger {
			strangers++
		} else {
			of++
		}
	}
	if of > usual+usual/10 {
		t.Errorf("%d dials of members in 10 min, and %d as usual", of, usual)
	}
	if most := 10 * 60 * w.s.limits.Strangers / 2 * 11 / 10; strangers > most {
		t.Errorf("%d dials on the word of a stranger, want at most %d", strangers, most)
	}
	if at, ok := w.upSince[member(1)]; !ok || at-begin > 6*time.Second {
		t.Errorf("a new member: connected %v after %s", ok, at-begin)
	}
}

// Who spreads most rumours loses one for the next, whoever that is of.
func TestRumoursOfOneSource(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Rumours = 4 })
	hear := func(i int, source netip.Addr) {
		w.s.Hear(0, Rumour{Member: member(i), Addrs: []netip.AddrPort{addr(i)}, Source: source})
	}
	hear(1, honest)
	for i := range 10 {
		hear(10+i, stranger)
	}
	hear(2, honest)
	for i := range 10 {
		hear(20+i, stranger)
	}
	for _, i := range []int{1, 2, 28, 29} {
		if w.s.targets[member(i)] == nil {
			t.Errorf("the rumour of %d is gone", i)
		}
	}
	w.check()
}

// A member that announces itself when it is back is dialled at once, in the middle
// of a long pause.
func TestAnnouncedAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	w.run(24 * time.Hour)
	w.run(6 * time.Second) // whatever is under way fails
	w.put(1, addr(1))
	begin := w.now
	w.s.Hear(w.now, Rumour{Member: member(1), Addrs: []netip.AddrPort{addr(1)}, Source: honest})
	w.run(2 * time.Second)
	if at, ok := w.upSince[member(1)]; !ok || at-begin > 1500*time.Millisecond {
		t.Errorf("connected %v after %s", ok, at-begin)
	}
}

// A host is asked who lives there, and again only when the resident stays away.
func TestHost(t *testing.T) {
	for _, name := range []string{"10.0.0.1:4171", "node.example:4171"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			p := w.put(1, addr(1))
			h := Host{Name: name}
			if name == addr(1).String() {
				h.Addrs = []netip.AddrPort{addr(1)}
			}
			w.names[name] = []netip.AddrPort{addr(1)}
			w.s.Configure(0, h)
			w.s.Configure(0, h)
			w.run(time.Hour)
			if !w.connected(member(1)) || len(w.log) != 1 || w.log[0].Host != name {
				t.Fatalf("connected %v by %d dials", w.connected(member(1)), len(w.log))
			}
			if m := w.s.Missing(w.now, 9); len(m) != 0 {
				t.Errorf("missing %v", m)
			}
			p.from = never
			w.lose(member(1))
			begin := w.now
			asked := func() (n int) {
				for i, d := range w.log {
					if d.Host != "" && w.times[i] > begin {
						n++
					}
				}
				return n
			}
			w.run(29 * time.Second)
			if asked() != 0 || len(w.dialsOf(member(1), begin)) == 0 {
				t.Errorf("asked %d times who lives there", asked())
			}
			w.run(31 * time.Second)
			if asked() == 0 {
				t.Error("not asked again")
			}
			if m := w.s.Missing(w.now, 9); len(m) != 2 || m[0].Host != name || m[1].Member != member(1) || m[1].Why != "no answer" || m[1].Tries == 0 {
				t.Errorf("missing %+v", m)
			}
			p.who, p.from = member(2), 0
			w.run(time.Minute)
			if !w.connected(member(2)) {
				t.Error("who moved in is not found")
			}
			w.run(time.Hour)
			if c := w.s.Counts(); c.Members != 1 {
				t.Errorf("who moved out is kept: %+v", c)
			}
		})
	}
}

// A host that is this node itself is noticed, and asked again after a change.
func TestHostIsSelf(t *testing.T) {
	w := newWorld(t, nil)
	w.put(0, addr(1)).otherwise = Self
	w.s.Configure(0, Host{Name: "me", Addrs: []netip.AddrPort{addr(1)}})
	w.run(9 * time.Minute)
	if n := len(w.log); n != 1 {
		t.Errorf("dialled itself %d times", n)
	}
	w.put(1, addr(1))
	w.s.NetworkChanged(w.now, nil)
	w.run(time.Second)
	if !w.connected(member(1)) {
		t.Error("not asked again after the network changed")
	}
}

// A name that does not resolve yet is looked up again.
func TestLateName(t *testing.T) {
	w := newWorld(t, nil)
	w.put(1, addr(1))
	w.s.Configure(0, Host{Name: "late.example", ID: member(1)})
	w.run(time.Minute)
	w.names["late.example"] = []netip.AddrPort{addr(1)}
	w.run(15 * time.Second)
	if !w.connected(member(1)) {
		t.Error("not connected")
	}
}
