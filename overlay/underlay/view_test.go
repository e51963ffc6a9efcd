package underlay

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// What changes whom this machine reaches matters. What pods, the overlay's own interface
// and the lifetimes of addresses do all day does not.
func TestView(t *testing.T) {
	const running = 0x41
	v := newView()
	lan, wifi, pod, bridge, overlay, nic := 2, 3, 20, 21, 22, 23
	at := func(link int, a string) addrAt { return addrAt{link, netip.MustParseAddr(a)} }
	steps := []struct {
		what string
		got  func() bool
		want bool
	}{
		{"loopback comes up", func() bool { return v.link(1, linkState{loopback: true, flags: running}) }, false},
		{"a card appears", func() bool { return v.link(lan, linkState{}) }, true},
		{"a cable is plugged in", func() bool { return v.link(lan, linkState{flags: running}) }, true},
		{"the kernel says so again", func() bool { return v.link(lan, linkState{flags: running}) }, false},
		{"it gets an address", func() bool { return v.addr(at(lan, "10.0.0.2"), addrState{}) }, true},
		{"a router extends its life", func() bool { return v.addr(at(lan, "10.0.0.2"), addrState{}) }, false},
		{"it is deprecated", func() bool { return v.addr(at(lan, "10.0.0.2"), addrState{passing: true}) }, true},
		{"a link-local address", func() bool { return v.addr(at(lan, "fe80::1"), addrState{}) }, false},
		{"its route", func() bool { return v.route(routeNews{link: lan, bits: 24, max: 32, kernel: true}) }, false},
		{"a default route", func() bool { return v.route(routeNews{link: lan, max: 32}) }, true},
		{"a route to another site", func() bool { return v.route(routeNews{link: lan, bits: 16, max: 32}) }, true},
		{"a route over several links", func() bool { return v.route(routeNews{bits: 16, max: 32}) }, true},
		{"a route to itself", func() bool { return v.route(routeNews{link: lan, bits: 32, max: 32, local: true}) }, false},
		{"radio", func() bool { return v.link(wifi, linkState{flags: running}) }, true},

		{"a pod's pair appears", func() bool { return v.link(pod, linkState{kind: "veth"}) }, false},
		{"it comes up", func() bool { return v.link(pod, linkState{kind: "veth", flags: running}) }, false},
		{"the pod's route", func() bool { return v.route(routeNews{link: pod, bits: 32, max: 32}) }, false},
		{"the pod goes", func() bool { return v.noLink(pod) }, false},
		{"a bridge for pods", func() bool { return v.link(bridge, linkState{kind: "bridge"}) }, false},
		{"with an address", func() bool { return v.addr(at(bridge, "10.1.0.1"), addrState{}) }, true},
		{"that gets its first pod", func() bool { return v.link(bridge, linkState{kind: "bridge", flags: running}) }, false},
		{"the overlay appears", func() bool { return v.link(overlay, linkState{kind: "tun", flags: running}) }, false},
		{"a member joins it", func() bool { return v.route(routeNews{link: overlay, bits: 24, max: 32}) }, false},
		{"a full tunnel", func() bool { return v.route(routeNews{link: overlay, max: 32}) }, true},

		{"in a container, the pair's end gets an address", func() bool {
			v.link(nic, linkState{kind: "veth", flags: running})
			return v.addr(at(nic, "172.17.0.2"), addrState{})
		}, true},
		{"and loses its carrier", func() bool { return v.link(nic, linkState{kind: "veth"}) }, true},

		{"the address goes", func() bool { return v.noAddr(at(lan, "10.0.0.2")) }, true},
		{"and again", func() bool { return v.noAddr(at(lan, "10.0.0.2")) }, false},
		{"the card goes", func() bool { return v.noLink(lan) }, true},
		{"and again", func() bool { return v.noLink(lan) }, false},
	}
	for _, s := range steps {
		if got := s.got(); got != s.want {
			t.Errorf("%s: matters %t, want %t", s.what, got, s.want)
		}
	}
}

// Several changes in a row are one piece of news, soon after the first; a stream of
// changes is news once a second.
func TestPace(t *testing.T) {
	p := pace{interval: interval}
	var told []time.Duration
	changes := []time.Duration{0, 10, 50, 99, 3000, 3001, 3500, 3900, 4050, 4150, 9000}
	for now := range time.Duration(10000) {
		if slices.Contains(changes, now) {
			p.note(now * time.Millisecond)
		}
		if p.tell(now * time.Millisecond) {
			told = append(told, now)
		}
	}
	if want := []time.Duration{100, 3100, 4100, 5100, 9100}; !slices.Equal(told, want) {
		t.Errorf("told at %v ms, want %v", told, want)
	}
}

func TestSlept(t *testing.T) {
	for after, want := range map[time.Duration]bool{
		time.Hour: false, time.Hour + 10*time.Millisecond: false, time.Hour + time.Second: true, 9 * time.Hour: true, 0: false,
	} {
		if got := slept(time.Hour, after); got != want {
			t.Errorf("ahead by %s: %t", after, got)
		}
	}
}

// A machine that slept is told so, whatever else did not change.
func TestWakeIsAChange(t *testing.T) {
	var looked atomic.Int64
	// The clock that goes on in sleep is an hour ahead when it is looked at again.
	u := start(t, Config{bounds: bounds{clock: func() time.Duration { return time.Duration(min(looked.Add(1)-1, 1)) * time.Hour }}})
	select {
	case <-u.Changes():
	case <-time.After(patience):
		t.Error("nobody is told")
	}
}
