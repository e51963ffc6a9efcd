package tun

import (
	"net/netip"
	"reflect"
	"testing"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestPlanRoutes(t *testing.T) {
	a1, a2 := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2")
	pods, net7 := pfx("10.42.1.0/24"), pfx("10.7.0.0/16")
	for name, c := range map[string]struct {
		have, want []Route
		change     routeChange
	}{
		"nothing to do":     {have: []Route{{net7, a1}}, want: []Route{{net7, a1}}},
		"first":             {want: []Route{{net7, a1}}, change: routeChange{add: []Route{{net7, a1}}}},
		"not masked":        {have: []Route{{net7, a1}}, want: []Route{{pfx("10.7.3.4/16"), a1}}},
		"other source":      {have: []Route{{net7, a1}}, want: []Route{{net7, a2}}, change: routeChange{replace: []Route{{net7, a2}}}},
		"one goes":          {have: []Route{{net7, a1}, {pods, a1}}, want: []Route{{net7, a1}}, change: routeChange{del: []Route{{pods, a1}}}},
		"all go":            {have: []Route{{pods, a1}}, change: routeChange{del: []Route{{pods, a1}}}},
		"wanted twice":      {want: []Route{{pods, a1}, {pods, a2}}, change: routeChange{add: []Route{{pods, a1}}}},
		"the zero prefix":   {want: []Route{{}}},
		"same, other width": {have: []Route{{pods, a1}}, want: []Route{{pfx("10.42.0.0/16"), a1}}, change: routeChange{add: []Route{{pfx("10.42.0.0/16"), a1}}, del: []Route{{pods, a1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := planRoutes(c.have, c.want); !reflect.DeepEqual(got, c.change) {
				t.Errorf("planRoutes = %+v, want %+v", got, c.change)
			}
		})
	}
}

func TestPlanAddrs(t *testing.T) {
	a, b, c := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2"), netip.MustParseAddr("fd00::1")
	add, del := planAddrs([]netip.Addr{a, b}, []netip.Addr{c, b, c})
	if !reflect.DeepEqual(add, []netip.Addr{c}) || !reflect.DeepEqual(del, []netip.Addr{a}) {
		t.Errorf("planAddrs adds %v and removes %v", add, del)
	}
}

func TestNetworkRoutes(t *testing.T) {
	got := networkRoutes([]netip.Prefix{pfx("10.7.0.1/16"), pfx("fd00::1/64"), pfx("10.9.9.9/32")})
	want := []Route{
		{Prefix: pfx("10.7.0.0/16"), Src: netip.MustParseAddr("10.7.0.1")},
		{Prefix: pfx("fd00::/64"), Src: netip.MustParseAddr("fd00::1")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("networkRoutes = %v, want %v", got, want)
	}
}
