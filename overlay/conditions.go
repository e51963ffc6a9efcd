package overlay

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/dial"
	"github.com/kairos-io/kairos/overlay/dns"
	"github.com/kairos-io/kairos/overlay/tun"
)

// Codes of conditions.
const (
	conditionAddress   = "address"
	conditionAlone     = "alone"
	conditionCloned    = "cloned"
	conditionInterface = "interface"
	conditionRoutes    = "routes"
	conditionShadowed  = "shadowed"
	conditionRecord    = "record"
	conditionRenamed   = "renamed"
	conditionDNS       = "dns"
)

// defaultAloneAfter is how long a member looks for others before it tells a person
// what may stand in the way. Members that can find each other take a second or two.
const defaultAloneAfter = 15 * time.Second

// advice is an error for a person, with what to do about it.
type advice struct {
	text, hint string
}

// Error implements error.
func (a *advice) Error() string { return a.text }

// condition notes or clears a condition, and tells only when it changes. What
// fails because the node is being taken down is none.
func (n *Node) condition(code, severity string, err error) {
	if n.ctx.Err() != nil {
		return
	}
	c, isNew := n.noteCondition(code, severity, err)
	switch {
	case !isNew:
	case n.opts.Tell != nil:
		n.opts.Tell(c)
	default:
		n.opts.Log.Warn("not well", "condition", code, "err", err)
	}
}

func (n *Node) noteCondition(code, severity string, err error) (c api.Condition, isNew bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, had := n.conditions[code]
	if err == nil {
		if had {
			n.opts.Log.Info("solved", "condition", code)
		}
		delete(n.conditions, code)
		return c, false
	}
	if had && old.Text == err.Error() {
		return c, false
	}
	c = api.Condition{Code: code, Severity: severity, Text: err.Error()}
	var a *advice
	if errors.As(err, &a) {
		c.Hint = a.hint
	}
	n.conditions[code] = c
	return c, true
}

// renamed says that this machine has got another name since it was pinned.
func (n *Node) renamed() error {
	now, kept := MemberName(n.opts.Name, n.ID()), n.world.name
	if now == kept {
		return nil
	}
	return &advice{
		text: fmt.Sprintf("this machine was renamed to %s, and stays %s in its network, where names are for good", n.opts.Name, kept),
		hint: "set the host name back; to come in under the new name, leave with `kairos reset` first",
	}
}

// unnamed adds what helps where the host cannot be told of the mesh's names.
func (n *Node) unnamed(err error) error {
	var e *dns.UnavailableError
	if !errors.As(err, &e) {
		return err
	}
	hint := "see `systemctl status systemd-resolved`, or switch names off with dns: false"
	switch {
	case n.opts.Kind == api.KindBridge:
		hint = "use addresses, or leave names alone with --no-dns"
	case e.Denied():
		hint = "let this user configure systemd-resolved (polkit actions org.freedesktop.resolve1.*), or switch names off with dns: false"
	}
	return &advice{text: e.Error(), hint: hint}
}

func (n *Node) conditionsLocked() []api.Condition {
	codes := slices.Sorted(maps.Keys(n.conditions))
	out := make([]api.Condition, 0, len(codes))
	for _, c := range codes {
		out = append(out, n.conditions[c])
	}
	return out
}

// shadowed says which networks of this host take packets away from the overlay.
func (n *Node) shadowed() error {
	networks := prefixes(n.network)
	shadows, err := n.device.Shadows(networks)
	if err != nil || len(shadows) == 0 {
		return err
	}
	return describeShadows(networks[0], shadows)
}

func describeShadows(network netip.Prefix, shadows []tun.Shadow) error {
	var routes []string
	for _, s := range shadows {
		to := s.Interface
		if to == "" {
			to = "elsewhere"
		}
		routes = append(routes, fmt.Sprintf("%s to %s", s.Prefix, to))
	}
	return &advice{
		text: fmt.Sprintf("this machine routes %s: packets to members with addresses in there do not take the overlay (%s)", strings.Join(routes, ", "), network),
		hint: "remove the route, or choose another range on every machine: overlay.cidr",
	}
}

// alone tells what may stand in the way of a member that has found nobody for a while.
func (n *Node) alone() error {
	refused := n.refused()
	n.mu.Lock()
	alone := n.waitingLocked(refused) != "" && time.Since(n.aloneSince) >= n.opts.aloneAfter
	n.mu.Unlock()
	if !alone {
		return nil
	}
	port := uint16(0)
	if len(n.opts.Listen) > 0 {
		port = n.opts.Listen[0].Port()
	}
	return describeAlone(port, n.opts, n.mesh.Missing(calledMost))
}

// calledMost bounds how many that do not answer are named.
const calledMost = 3

// describeAlone names who was called without an answer, and what is left to try.
func describeAlone(port uint16, opts Options, missing []dial.Missing) error {
	text := fmt.Sprintf("no other machine was found for %s", opts.aloneAfter)
	var called []string
	for _, m := range missing {
		switch {
		case m.Host != "":
			called = append(called, m.Host)
		case m.Addr.IsValid():
			called = append(called, m.Addr.String())
		}
	}
	if slices.Sort(called); len(called) > 0 {
		text += "; called without an answer: " + strings.Join(slices.Compact(called), ", ")
	}
	open := "let its UDP and TCP port through the firewall of at least one machine"
	if port != 0 {
		open = fmt.Sprintf("let UDP and TCP port %d through the firewall of at least one machine", port)
	}
	name := "name that machine to the others (overlay.peers)"
	if opts.Kind == api.KindBridge {
		name = "name that machine here (--peer host:port)"
	}
	return &advice{
		text: text,
		hint: fmt.Sprintf("see that others are on and have the same token; %s, and %s", open, name),
	}
}

// watchAlone has the loop look once the time is over; nothing else happens by then.
func (n *Node) watchAlone() { time.AfterFunc(n.opts.aloneAfter, n.wake) }
