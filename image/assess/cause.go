package assess

import (
	"fmt"
	"slices"
	"strings"
)

// cause says why something that needs the network below is missing: by a fault
// of this system, or, where none is seen, by which outage. One of the two is empty.
func (e *Expect) cause(f Facts) (fault, outage string) {
	if f.Nodes == 0 {
		fault = e.cardFault(f)
		if fault == "" && e.Mesh {
			fault = pathFault(f)
		}
		if fault != "" {
			return fault, ""
		}
		if e.Mesh {
			return "", e.outage(f)
		}
	}
	return serverCause(f)
}

// cardFault is what is wrong with the cards that carried the network before. A
// card that had no carrier then is nobody's loss.
func (e *Expect) cardFault(f Facts) string {
	served := slices.ContainsFunc(e.NICs, func(n NIC) bool { return n.Carrier && n.Served })
	for _, u := range f.Units {
		if served && u.Name == UnitNetworkd && u.Active != UnitActive {
			return fmt.Sprintf("%s is %s", u.Name, u)
		}
	}
	for _, was := range e.NICs {
		if !was.Carrier {
			continue
		}
		now := f.card(was.MAC)
		switch {
		case now == nil:
			return fmt.Sprintf("the network card %s (%s) is gone", was.Name, was.MAC)
		case !now.Up:
			return fmt.Sprintf("the network card %s (%s) was never brought up", now.Name, was.MAC)
		case was.Served && !now.Served():
			return fmt.Sprintf("systemd-networkd does not serve the network card %s (%s): %s", now.Name, was.MAC, orNothing(now.Setup))
		case now.Carrier && was.Static && len(was.Addrs) > 0 && len(now.Addrs) == 0:
			return fmt.Sprintf("the network card %s (%s) lost its configured address %s", now.Name, was.MAC, was.Addrs[0])
		}
	}
	return ""
}

func orNothing(setup string) string {
	if setup == "" {
		return "it knows nothing of it"
	}
	return setup
}

// pathFault is a way to somebody that is open or was closed by this machine,
// although the overlay does not get through. That the gateway answers proves
// little: it also does when the line behind it is dead, or the other nodes are off.
func pathFault(f Facts) string {
	for _, h := range f.Heard {
		p := h.Probe
		switch {
		case h.Answer == Forbidden:
			return fmt.Sprintf("this machine's own packet filter forbids a connection to %s (%s)", p.Name, p.Addr)
		case p.heardFrom(h.Answer) && !p.Gateway:
			return fmt.Sprintf("%s answers at %s, and the overlay does not get through", p.Name, p.Addr)
		case h.Answer == Silent && h.OnLink && h.Neighbour && p.Answers:
			return fmt.Sprintf("%s (%s) answered before and is on the link, but nothing comes back from it any more", p.Name, p.Addr)
		}
	}
	return ""
}

// outage says which one it is, for people.
func (e *Expect) outage(f Facts) string {
	dark, waiting := []string{}, []string{}
	for _, was := range e.NICs {
		now := f.card(was.MAC)
		if !was.Carrier || now == nil {
			continue
		}
		switch {
		case !now.Carrier:
			dark = append(dark, now.Name)
		case len(now.Addrs) == 0:
			waiting = append(waiting, now.Name)
		}
	}
	gateway := slices.ContainsFunc(f.Heard, func(h Heard) bool { return h.Probe.Gateway && (h.Answer.There() || h.Neighbour) })
	switch {
	case len(waiting) > 0:
		return "no answer to DHCP or router solicitation on " + strings.Join(waiting, ", ")
	case gateway:
		return "the gateway is there, but no other node or the way to it"
	case len(dark) > 0:
		return "no carrier on " + strings.Join(dark, ", ")
	}
	return "nobody that was known before answers"
}

// serverCause is about a worker that is connected to others and not ready.
func serverCause(f Facts) (fault, outage string) {
	for _, h := range f.Heard {
		if h.Probe.Server && h.Probe.heardFrom(h.Answer) && !f.K3s.ServerConnected {
			return fmt.Sprintf("the server %s answers at %s, and the overlay does not get through", h.Probe.Name, h.Probe.Addr), ""
		}
	}
	switch {
	case !f.K3s.ServerConnected:
		return "", "the cluster's server is away"
	case f.K3s.API == Refused:
		// The refusal came through the overlay: the way is open, and nobody serves there.
		return "", "the server is there and its Kubernetes API is not"
	case f.K3s.API == Accepted:
		return "the server's Kubernetes API is there", ""
	}
	return "the overlay is connected to the server, and its Kubernetes API does not answer through it", ""
}

func (f Facts) card(mac string) *Card {
	i := slices.IndexFunc(f.Cards, func(c Card) bool { return c.MAC == mac })
	if i < 0 {
		return nil
	}
	return &f.Cards[i]
}
