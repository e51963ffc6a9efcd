package api

import "net/netip"

// k3s' default ranges, which the agent passes explicitly: every machine of the mesh
// agrees on them.
var (
	PodRange     = netip.MustParsePrefix("10.42.0.0/16")
	ServiceRange = netip.MustParsePrefix("10.43.0.0/16")
)

// Resolver is where pods find the machine's resolver, where it runs the OS image: an
// address of the loopback interface, the same on every machine and none for others.
var Resolver = netip.MustParseAddr("169.254.53.53")
