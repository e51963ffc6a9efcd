package underlay

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How often is looked at what nobody tells, where that takes no more than two system
// calls: whether the machine has slept; and, where there is no netlink, its addresses.
const (
	lookForSleep = time.Second
	lookForAddrs = 5 * time.Second
)

// machine is what the kernel says of this machine's network.
type machine struct {
	log     *slog.Logger
	changes chan struct{}
	bounds  bounds

	mu    sync.Mutex
	told  bool // somebody tells when what is known becomes wrong
	known []netip.Addr
	news  uint64 // how often it became wrong
}

func (m *machine) init(log *slog.Logger, b bounds) {
	m.log, m.changes, m.bounds = log, make(chan struct{}, 1), b
}

// addrs returns the machine's addresses in order. They are read again only after
// something has changed.
func (m *machine) addrs() ([]netip.Addr, error) {
	m.mu.Lock()
	known, news := m.known, m.news
	m.mu.Unlock()
	if known != nil {
		return slices.Clone(known), nil
	}
	cards, err := readCards()
	out := order(cards)
	if err != nil {
		return out, fmt.Errorf("read this machine's addresses: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told && news == m.news {
		m.known = slices.Clone(out)
	}
	return out, nil
}

// outdated takes what is known as wrong, and whether somebody tells from now on.
func (m *machine) outdated(told bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told, m.known = told, nil
	m.news++
}

// watch tells changes until ctx ends.
func (m *machine) watch(ctx context.Context) {
	var following sync.WaitGroup
	defer following.Wait()
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	following.Go(func() {
		err := m.follow(ctx, func() { m.outdated(true); tell() })
		m.outdated(false)
		if ctx.Err() == nil {
			m.log.Info("changes of this machine's network are looked for now and then", "err", err)
			m.poll(ctx, tell)
		}
	})
	look := time.NewTicker(lookForSleep)
	defer look.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	start, ahead := time.Now(), m.bounds.clock()
	pace := pace{interval: m.bounds.interval}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			pace.note(time.Since(start))
		case <-look.C:
			now := m.bounds.clock()
			if slept(ahead, now) {
				m.log.Info("this machine was asleep", "for", now-ahead)
				pace.note(time.Since(start))
			}
			ahead = now
		case <-due.C:
		}
		if pace.tell(time.Since(start)) {
			m.publish()
		}
		if pace.pending {
			due.Reset(max(pace.due-time.Since(start), time.Millisecond))
		}
	}
}

// publish leaves a value for the reader, who may have one already.
func (m *machine) publish() {
	select {
	case m.changes <- struct{}{}:
	default:
	}
}

// poll looks at the addresses now and then.
func (m *machine) poll(ctx context.Context, tell func()) {
	look := time.NewTicker(lookForAddrs)
	defer look.Stop()
	var before []netip.Addr
	for {
		after, err := m.addrs()
		if err != nil {
			m.log.Debug("cannot look for changes", "err", err)
		} else if !slices.Equal(before, after) {
			if before != nil {
				tell()
			}
			before = after
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// addrOf reads an address as the standard library and netlink write it.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
