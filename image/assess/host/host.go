// Package host looks at this machine's network below the overlay: its cards, by
// /sys and what systemd-networkd says of them, its gateways, and who answers.
package host

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kairos-io/kairos/image/assess"
)

// Network is this machine's network at one moment.
type Network struct {
	Cards    []assess.Card
	Gateways []netip.Addr // a link-local one has its zone
	links    []link
}

// Look reads the network of the machine whose /sys and /run are below root; "/"
// is this one. Addresses and routes are always this machine's.
func Look(root string) (Network, error) {
	var n Network
	addrs, err := addresses()
	if err != nil {
		return n, err
	}
	if n.Gateways, err = gateways(); err != nil {
		return n, err
	}
	dir := filepath.Join(root, "sys/class/net")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return n, fmt.Errorf("list network cards: %w", err)
	}
	for _, e := range entries {
		l, err := readLink(root, e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // virtual, or gone by now
		}
		if err != nil {
			return n, err
		}
		for _, a := range addrs {
			if a.index == l.index {
				l.card.Addrs = append(l.card.Addrs, a.prefix)
				l.card.Static = l.card.Static || a.permanent && !l.leased
			}
		}
		n.links = append(n.links, l)
	}
	n.Cards = cards(n.links)
	return n, nil
}

// link is one real card with what only this package needs.
type link struct {
	card   assess.Card
	index  int
	slave  bool // of a bond, a bridge, or a card that hides it (SR-IOV)
	leased bool // DHCP gave it an address
}

// readLink reads one interface; fs.ErrNotExist for one without a device behind
// it: bridges, tunnels, containers' ends.
func readLink(root, name string) (link, error) {
	dir := filepath.Join(root, "sys/class/net", name)
	if _, err := os.Stat(filepath.Join(dir, "device")); err != nil {
		return link{}, err
	}
	l := link{card: assess.Card{Name: name}}
	var err error
	if l.card.MAC, err = attribute(dir, "address"); err != nil {
		return l, err
	}
	flags, err := number(dir, "flags")
	if err != nil {
		return l, err
	}
	l.card.Up = flags&1 != 0 // IFF_UP, netdevice(7)
	if l.index, err = number(dir, "ifindex"); err != nil {
		return l, err
	}
	// The kernel refuses to read it of a card that is down: then there is none.
	carrier, err := attribute(dir, "carrier")
	l.card.Carrier = err == nil && carrier == "1"
	_, err = os.Stat(filepath.Join(dir, "master"))
	l.slave = err == nil
	netif := filepath.Join(root, "run/systemd/netif")
	_, err = os.Stat(filepath.Join(netif, "leases", strconv.Itoa(l.index)))
	l.leased = err == nil
	l.card.Setup, err = adminState(filepath.Join(netif, "links", strconv.Itoa(l.index)))
	return l, err
}

func attribute(dir, name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("read a network card: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

func number(dir, name string) (int, error) {
	text, err := attribute(dir, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("read a network card: %s: %w", filepath.Join(dir, name), err)
	}
	return int(n), nil
}

// adminState is networkd's word about a link: sd_network_link_get_setup_state(3)
// reads the same file. "" when networkd has not written one.
func adminState(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read networkd's state: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if state, ok := strings.CutPrefix(strings.TrimSpace(line), "ADMIN_STATE="); ok {
			return state, nil
		}
	}
	return "", nil
}

// cards drops a card whose MAC another one carries for it, and sorts by name.
func cards(links []link) []assess.Card {
	var out []assess.Card
	for _, l := range links {
		twin := slices.ContainsFunc(links, func(o link) bool { return o.card.MAC == l.card.MAC && o.index != l.index && !o.slave })
		if l.slave && twin {
			continue
		}
		out = append(out, l.card)
	}
	slices.SortFunc(out, func(a, b assess.Card) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
