//go:build !linux

package underlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

var started = time.Now()

// sleepClock is how far the wall clock, which goes on while the machine sleeps, is ahead
// of the other one. Setting the clock looks like sleep, and does no harm.
func sleepClock() time.Duration {
	now := time.Now()
	return now.Round(0).Sub(started.Round(0)) - now.Sub(started)
}

// readCards reads the interfaces and their addresses, without knowing what they are.
func readCards() ([]card, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var cards []card
	for _, l := range links {
		c := card{index: l.Index, loopback: l.Flags&net.FlagLoopback != 0, carrier: l.Flags&net.FlagRunning != 0}
		addrs, err := l.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Name, err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				c.addrs = append(c.addrs, cardAddr{addr: addrOf(n.IP)})
			}
		}
		cards = append(cards, c)
	}
	return cards, nil
}

// follow fails: nobody tells.
func (m *machine) follow(context.Context, func()) error { return errors.ErrUnsupported }
