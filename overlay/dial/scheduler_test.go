package dial

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Every address gets its turn, wherever the one that works stands among the others,
// and whether these refuse or say nothing.
func TestEveryAddressGetsItsTurn(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		for n := range 20 {
			w := newWorld(t, nil)
			var addrs []netip.AddrPort
			for i := range 20 {
				addrs = append(addrs, addr(1000*i))
				if refuses {
					w.put(99, addr(1000*i)).refuses = true
				}
			}
			w.put(1, addrs[n])
			w.s.Learn(0, member(1), addrs)
			w.run(12 * time.Second)
			if !w.connected(member(1)) {
				t.Fatalf("address %d of 20 was not reached (others refuse: %v)", n, refuses)
			}
			limit := time.Duration(n+1)*w.s.timing.Step + time.Duration(n/8)*w.s.timing.Dial
			if refuses {
				limit = time.Duration(n+1) * 5 * time.Millisecond
			}
			if at := w.upSince[member(1)]; at > limit {
				t.Errorf("address %d was reached after %s (others refuse: %v)", n, at, refuses)
			}
			w.check()
		}
	}
}

// The addresses are not all dialled at once.
func TestPace(t *testing.T) {
	w := newWorld(t, nil)
	w.s.Learn(0, member(1), []netip.AddrPort{addr(0), addr(1000), addr(2000), addr(3000)})
	w.run(time.Second)
	var got []string
	for i, d := range w.log {
		got = append(got, w.times[i].String()+" "+d.Addr.Addr().String()+" "+d.Transport.String())
	}
	want := []string{
		"0s 10.0.0.0 quic", "150ms 10.0.3.232 quic", "250ms 10.0.0.0 tcp", "300ms 10.0.7.208 quic",
		"400ms 10.0.3.232 tcp", "450ms 10.0.11.184 quic", "550ms 10.0.7.208 tcp", "700ms 10.0.11.184 tcp",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// What worked last goes first, then what is near, and what this machine has itself last.
func TestOrder(t *testing.T) {
	w := newWorld(t, nil)
	id, at := member(1), netip.MustParseAddrPort
	w.s.SetLocal([]netip.Addr{netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("172.17.0.1"), netip.MustParseAddr("fd00:1::7")})
	w.s.Connected(0, id, QUIC, at("203.0.113.9:9"))
	w.s.Disconnected(time.Minute, id)
	w.s.Learn(time.Minute, id, []netip.AddrPort{at("172.17.0.1:1"), at("198.51.100.1:1"), at("192.168.1.9:1"), at("[fd00:1::9]:1"), at("203.0.113.9:9")})
	w.s.Hear(time.Minute, Rumour{Member: id, Addrs: []netip.AddrPort{at("192.168.2.9:1"), at("192.168.1.8:1"), at("198.51.100.1:1")}})
	var got []string
	for _, a := range w.s.targets[id].addrs {
		got = append(got, a.addr.String())
	}
	want := []string{
		"203.0.113.9:9", "192.168.1.8:1", "192.168.1.9:1", "[fd00:1::9]:1", "198.51.100.1:1", "192.168.2.9:1", "172.17.0.1:1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// The lower ID dials at once, the higher leaves it a moment.
func TestDeference(t *testing.T) {
	for _, tc := range []struct {
		self identity.ID
		want time.Duration
	}{{identity.ID{0, 1}, 0}, {identity.ID{9}, 500 * time.Millisecond}} {
		w := newWorld(t, func(c *Config) { c.Self = tc.self })
		w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
		w.s.Learn(0, member(1), []netip.AddrPort{addr(1), addr(2)})
		w.run(time.Second)
		if got := w.dialsOf(member(1), 0)[0]; got != tc.want {
			t.Errorf("self %s dials after %s", tc.self.Short(), got)
		}
	}
}

// Where nothing answers, the pause is an eighth of the absence, at most two minutes.
func TestBackoff(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.TCP = false })
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	w.run(24 * time.Hour)
	dials := w.dialsOf(member(1), 0)
	for i := 1; i < len(dials); i++ {
		ended := dials[i-1] + w.s.timing.Dial
		pause := dials[i] - ended
		most := min(max(ended/8, 500*time.Millisecond), 2*time.Minute)
		if pause > most || pause < most*3/4-time.Millisecond {
			t.Fatalf("dial %d at %s: a pause of %s, want about %s", i, dials[i], pause, most)
		}
	}
	if n := len(dials); n < 600 || n > 1000 {
		t.Errorf("%d dials in a day", n)
	}
}

// A peer on TCP is tried over QUIC after 2 s, 4 s, ... 10 min, and at once when the
// network changed or a QUIC connection to it broke.
func TestUpgrade(t *testing.T) {
	w := newWorld(t, nil)
	p := w.put(1, addr(1))
	p.noQUIC = true
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	w.run(time.Second)
	if over, ok := w.conns[member(1)]; !ok || over != TCP {
		t.Fatal("not connected over TCP")
	}
	w.run(3 * time.Hour)
	dials := w.dialsOf(member(1), time.Second)
	var pauses []time.Duration
	for i := 1; i < len(dials); i++ {
		pauses = append(pauses, (dials[i] - dials[i-1] - w.s.timing.Dial).Round(time.Second))
	}
	want := []time.Duration{4, 8, 16, 32, 64, 128, 256, 512, 600, 600}
	for i := range want {
		if i >= len(pauses) || pauses[i] != want[i]*time.Second {
			t.Fatalf("pauses %v, want %v s", pauses, want)
		}
	}
	begin := w.now
	w.s.NetworkChanged(w.now, nil)
	w.run(10 * time.Second)
	if d := w.dialsOf(member(1), begin); len(d) < 2 || d[0]-begin > 10*time.Millisecond {
		t.Errorf("after a change of the network dialled at %v", d)
	}
	w.run(time.Hour)
	p.noQUIC = false
	w.s.NetworkChanged(w.now, nil)
	w.run(time.Second)
	if w.conns[member(1)] != QUIC {
		t.Fatal("not over QUIC")
	}
	begin = w.now
	w.conns[member(1)] = TCP
	w.s.Connected(w.now, member(1), TCP, addr(1))
	w.run(time.Second)
	if w.conns[member(1)] != QUIC || w.dialsOf(member(1), begin)[0] != begin {
		t.Error("what is left after QUIC broke is kept")
	}
}

// A change of the network during a dial is not lost, nor during the pause after
// it, and with a thousand members that are gone it takes no second.
func TestNetworkChange(t *testing.T) {
	for _, when := range []time.Duration{2 * time.Second, 5*time.Second + 10*time.Millisecond, 10 * time.Minute} {
		for _, others := range []int{0, 1000} {
			w := newWorld(t, nil)
			for i := range others {
				w.s.Learn(0, member(100+i), []netip.AddrPort{addr(100 + i), addr(50000 + i)})
			}
			w.s.Learn(0, member(1), []netip.AddrPort{addr(2), addr(1)})
			w.run(when / 2)
			w.s.Connected(w.now, member(1), QUIC, addr(1))
			w.s.Disconnected(w.now, member(1))
			w.run(when - when/2)
			w.put(1, addr(1)) // now it can be reached
			begin := w.now
			w.s.NetworkChanged(w.now, nil)
			w.s.NetworkChanged(w.now+time.Millisecond, nil)
			w.run(time.Second)
			if at, ok := w.upSince[member(1)]; !ok || at-begin > 500*time.Millisecond {
				t.Errorf("changed after %s beside %d others: connected %v after %s", when, others, ok, at-begin)
			}
			w.check()
		}
	}
}

// A network that changes all the time neither piles up dials nor keeps a slow
// peer from being reached.
func TestFlappingNetwork(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 500 {
		w.s.Learn(0, member(100+i), []netip.AddrPort{addr(100 + i)})
	}
	w.put(1, addr(1)).delay = 400 * time.Millisecond
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	for range 200 {
		w.run(50 * time.Millisecond)
		w.s.NetworkChanged(w.now, nil)
	}
	if !w.connected(member(1)) {
		t.Error("a peer at 400 ms was not reached in 10 s")
	}
	if limit := 2 * (w.s.limits.Members + w.s.limits.Strangers); w.most > limit {
		t.Errorf("%d dials at once, want at most %d", w.most, limit)
	}
}

// A peer that does not answer since the network changed is dialled beside the
// connection that it has, until one works or the doubt goes.
func TestDoubt(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Self = identity.ID{9} }) // would defer
	p := w.put(1, addr(1))
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	w.run(time.Minute)
	begin := w.now
	w.s.Doubt(w.now, member(1), true)
	w.run(time.Second)
	if d := w.dialsOf(member(1), begin); len(d) != 1 || d[0] != begin {
		t.Errorf("dialled at %v, want at once", d)
	}
	p.from = never
	w.s.Doubt(w.now, member(1), true)
	w.run(time.Minute)
	w.s.Doubt(w.now, member(1), false)
	begin = w.now
	w.run(time.Hour)
	if d := w.dialsOf(member(1), begin); len(d) != 0 {
		t.Errorf("dialled %d times after the doubt was gone", len(d))
	}
	if w.s.Counts().Dials != 0 {
		t.Error("dials are left")
	}
}

// Connections that break at once are not followed by others at once; a clone is
// left alone for longer.
func TestStrikes(t *testing.T) {
	w := newWorld(t, nil)
	w.put(1, addr(1))
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	count := 0
	for w.now < 10*time.Minute {
		w.run(10 * time.Millisecond)
		if w.connected(member(1)) {
			count++
			w.lose(member(1))
		}
	}
	if count < 5 || count > 20 {
		t.Errorf("connected %d times in 10 min", count)
	}
	w = newWorld(t, nil)
	w.put(1, addr(1)).otherwise = Clone
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	w.run(10 * time.Minute)
	if n := len(w.log); n < 4 || n > 15 {
		t.Errorf("a clone dialled %d times in 10 min", n)
	}
	w = newWorld(t, nil)
	w.put(1, addr(1)).otherwise = Clone
	w.s.Configure(0, Host{Name: "hub", Addrs: []netip.AddrPort{addr(1)}})
	w.run(10 * time.Minute)
	if n := len(w.log); n < 4 || n > 15 {
		t.Errorf("a clone dialled a host %d times in 10 min", n)
	}
}

// Nothing is kept for ever because a record is missing, and those who are kept do
// not keep new members out.
func TestEverythingEnds(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 5000 {
		w.s.Connected(w.now, member(i), QUIC, addr(i))
		w.s.Disconnected(w.now+time.Millisecond, member(i))
	}
	w.check()
	w.put(9999, addr(9999))
	w.s.Learn(time.Second, member(9999), []netip.AddrPort{addr(9999)})
	w.run(time.Minute)
	if !w.connected(member(9999)) {
		t.Error("a new member was not dialled")
	}
	w.run(10 * time.Minute)
	if c := w.s.Counts(); c.Members != 1 || c.Dials > 0 {
		t.Errorf("after all ends: %+v", c)
	}
	w.s.Forget(w.now, member(9999))
	if w.run(time.Minute); w.s.Counts().Members != 1 {
		t.Error("a connected member is not kept")
	}
	w.lose(member(9999))
	if w.run(time.Minute); w.s.Counts().Members != 0 || len(w.s.waiting.items) != 0 {
		t.Error("a member that left is kept")
	}
}

// More members than are kept: the records win over who was only met.
func TestMembersAreNotStarved(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 4096 {
		w.s.Learn(0, member(i), []netip.AddrPort{addr(i)})
	}
	w.s.Learn(0, member(5000), []netip.AddrPort{addr(5000)})
	w.check()
	w.s.Forget(0, member(7))
	w.run(0)
	w.put(5000, addr(5000))
	w.s.Learn(0, member(5000), []netip.AddrPort{addr(5000)})
	w.run(10 * time.Minute)
	if !w.connected(member(5000)) {
		t.Error("no room after one was forgotten")
	}
}

// Of four thousand members most are gone. The others are connected soon, the
// dials at once stay bounded, and the same happens every time.
func TestThousands(t *testing.T) {
	var traces []string
	for range 2 {
		w := newWorld(t, nil)
		for i := range 4000 {
			w.s.Learn(0, member(i), []netip.AddrPort{addr(1<<17 | i), addr(i)})
			if i%10 == 0 {
				w.put(i, addr(i)).delay = 30 * time.Millisecond
			}
		}
		w.run(20 * time.Minute)
		w.check()
		if len(w.conns) != 400 {
			t.Errorf("%d of 400 connected", len(w.conns))
		}
		if w.most > w.s.limits.Members {
			t.Errorf("%d dials at once", w.most)
		}
		// The whole half goes and comes back: a partition.
		for i := range 4000 {
			if w.connected(member(i)) {
				w.lose(member(i))
			}
		}
		begin := w.now
		w.run(20 * time.Second)
		late := 0
		for i := 0; i < 4000; i += 10 {
			if at := w.upSince[member(i)]; !w.connected(member(i)) || at-begin > 10*time.Second {
				late++
			}
		}
		if late > 0 {
			t.Errorf("%d of 400 members that came back waited for those that did not", late)
		}
		traces = append(traces, w.trace())
	}
	t.Logf("RESULT %s", traces[0])
	if traces[0] != traces[1] {
		t.Errorf("two runs differ: %q", traces)
	}
}

// Nobody waits for ever for a slot, however many have been gone for less long.
func TestNobodyIsPassedForEver(t *testing.T) {
	w := newWorld(t, nil)
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	w.run(time.Hour)
	for i := range 3000 {
		w.s.Learn(w.now, member(100+i), []netip.AddrPort{addr(100 + i)})
	}
	w.run(10 * time.Minute)
	w.put(1, addr(1))
	w.run(20 * time.Minute)
	if !w.connected(member(1)) {
		t.Error("who was away for longest is never dialled any more")
	}
}

// Members that come and go all the time leave a turn to who is away for long.
func TestTurnsOfTheOthers(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Members = 8 })
	w.s.Learn(0, member(1), []netip.AddrPort{addr(1)})
	w.run(time.Hour)
	for i := range 20 * 60 {
		w.after(time.Duration(i)*time.Second, func() {
			for j := range 3 {
				w.s.Forget(w.now, member(1000+3*(i-90)+j))
				w.s.Learn(w.now, member(1000+3*i+j), []netip.AddrPort{addr(1000 + 3*i + j)})
			}
		})
	}
	w.run(5 * time.Minute)
	w.put(1, addr(1))
	w.run(14 * time.Minute)
	if !w.connected(member(1)) {
		t.Error("it never had its turn")
	}
}

// Members that are gone leave slots for one that was there a moment ago.
func TestSlotsForWhoWasHere(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 3000 {
		w.s.Learn(0, member(100+i), []netip.AddrPort{addr(100 + i)})
	}
	w.s.Connected(0, member(1), QUIC, addr(1))
	w.run(time.Hour)
	w.put(1, addr(1))
	begin := w.now
	w.s.Disconnected(w.now, member(1))
	w.run(time.Second)
	if at, ok := w.upSince[member(1)]; !ok || at-begin > 50*time.Millisecond {
		t.Errorf("connected %v after %s", ok, at-begin)
	}
}

// What happens in any order keeps the books in order, and ends.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t, func(c *Config) {
			c.Rand, c.Limits = r.Float64, Limits{Targets: 40, Rumours: 6, Members: 5, Strangers: 2, PerTarget: 4}
			c.QUIC, c.TCP = r.IntN(4) > 0, true
		})
		for i := range 60 {
			p := w.put(i, addr(i))
			p.noQUIC, p.noTCP, p.refuses = r.IntN(3) == 0, r.IntN(4) == 0, r.IntN(5) == 0
			p.otherwise = []Outcome{Failed, Failed, Failed, Failed, Self, NotAllowed, Clone}[r.IntN(7)]
		}
		w.names["a.example"] = []netip.AddrPort{addr(3), addr(4)}
		w.s.Configure(0, Host{Name: "a.example"})
		w.s.Configure(0, Host{Name: "b", Addrs: []netip.AddrPort{addr(5)}})
		w.s.Configure(0, Host{Name: "c", ID: member(6), Addrs: []netip.AddrPort{addr(6)}})
		for range 400 {
			i := r.IntN(60)
			some := []netip.AddrPort{addr(r.IntN(60)), addr(i), addr(1000 + r.IntN(60))}
			switch r.IntN(9) {
			case 0:
				w.s.Learn(w.now, member(i), some)
			case 1:
				w.s.Forget(w.now, member(i))
			case 2:
				w.s.Hear(w.now, Rumour{Member: member(i), Addrs: some, Source: addr(r.IntN(5)).Addr()})
			case 3:
				w.connect(member(i), Transport(r.IntN(2)), netip.AddrPort{})
			case 4, 5:
				if w.connected(member(i)) {
					w.lose(member(i))
				}
			case 6:
				w.s.Doubt(w.now, member(i), r.IntN(2) == 0)
			case 7:
				w.s.NetworkChanged(w.now, []netip.Addr{addr(r.IntN(60)).Addr()})
			}
			w.run(time.Duration(r.ExpFloat64() * float64(time.Second)))
			w.check()
		}
	}
}
