package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/image/assess"
)

// askTimeout is how long a place may take to answer. The kernel confirms a
// neighbour it has doubts of five seconds after it first sends something there.
const askTimeout = 8 * time.Second

// Dial opens a TCP connection; net.Dialer's DialContext is one.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Ask tries a TCP connection to every place at once, says nothing on those that
// open, and returns what came back, in the order of the probes.
func (n Network) Ask(ctx context.Context, dial Dial, probes []assess.Probe) ([]assess.Heard, error) {
	out := make([]assess.Heard, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() {
			out[i] = assess.Heard{Probe: p, OnLink: n.onLink(p.Addr.Addr()), Answer: Try(ctx, dial, p.Addr)}
		})
	}
	wg.Wait()
	near, err := neighbours()
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Neighbour = near[out[i].Probe.Addr.Addr().WithZone("")]
	}
	return out, nil
}

// Try tries one connection.
func Try(ctx context.Context, dial Dial, to netip.AddrPort) assess.Answer {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := dial(ctx, "tcp", to.String())
	if err == nil {
		_ = c.Close() // nothing was sent
	}
	return classify(err)
}

func classify(err error) assess.Answer {
	switch {
	case err == nil:
		return assess.Accepted
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return assess.Refused
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return assess.Forbidden
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return assess.Silent
	}
	return assess.Unreachable
}

// onLink reports whether an address is in the network of one of the cards.
func (n Network) onLink(a netip.Addr) bool {
	if a.IsLinkLocalUnicast() {
		return true
	}
	for _, c := range n.Cards {
		for _, p := range c.Addrs {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}
