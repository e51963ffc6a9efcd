package overlay

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/dns"
)

// registerAgain is how long a host that does not let itself be told of our
// names is left alone.
const registerAgain = 30 * time.Second

// A host that boots may not answer in time. It is asked again soon, and what is wrong
// is told from the second time on.
const slowAgain = 2 * time.Second

// names is the mesh's name service on this machine: a server for the zone, and
// the host's knowledge of it. Telling the host may take seconds (D-Bus, a disk),
// so a goroutine of its own does it. The nil *names does nothing.
type names struct {
	opts   Options
	server *dns.Server
	hosts  []dns.Host // of the last zone; the loop alone uses it
	zones  chan *dns.Zone
	cancel context.CancelFunc
	done   chan struct{}
	slow   bool // the host did not answer the last time; run alone uses it

	mu  sync.Mutex
	err error // of the last try to tell the host
}

// openNames starts the server. That the host knows of it comes later.
func openNames(ctx context.Context, opts Options) (*names, error) {
	if !opts.DNS {
		return nil, nil
	}
	server, err := dns.Listen(ctx, opts.DNSListen, opts.Log)
	if err != nil {
		return nil, err
	}
	n := &names{opts: opts, server: server, zones: make(chan *dns.Zone, 1), done: make(chan struct{})}
	ctx, n.cancel = context.WithCancel(ctx)
	go n.run(ctx)
	return n, nil
}

// set names the hosts from now on and returns what is wrong with telling the host.
func (n *names) set(hosts []dns.Host) error {
	if n == nil {
		return nil
	}
	if n.hosts == nil || !slices.EqualFunc(n.hosts, hosts, sameHost) {
		n.hosts = hosts
		zone := dns.BuildZone(dns.Domain, hosts)
		n.server.SetZone(zone)
		select {
		case <-n.zones: // nobody needs the one before
		default:
		}
		n.zones <- zone
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

func sameHost(a, b dns.Host) bool {
	return a.ID == b.ID && a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs)
}

// run keeps the host informed until ctx ends, and then makes it forget.
func (n *names) run(ctx context.Context) {
	defer close(n.done)
	var reg *dns.Registration
	defer func() {
		if reg != nil {
			if err := reg.Close(); err != nil {
				n.opts.Log.Warn("cannot take the names back", "err", err)
			}
		}
	}()
	again := time.NewTimer(registerAgain)
	defer again.Stop()
	var zone *dns.Zone
	for {
		select {
		case <-ctx.Done():
			return
		case zone = <-n.zones:
		case <-again.C: // also where all went well: others write hosts files too
		}
		if zone == nil {
			continue
		}
		var err error
		if reg == nil {
			reg, err = dns.Register(ctx, dns.RegisterConfig{
				Interface: n.opts.Interface, Server: n.server.Addr(), Domain: dns.Domain, Log: n.opts.Log,
			})
		}
		if reg != nil && err == nil {
			err = reg.Update(zone)
		}
		wait, told := n.judge(err)
		again.Reset(wait)
		n.mu.Lock()
		n.err = told
		n.mu.Unlock()
	}
}

// judge says how long to wait for the next try, and what of this one is to be told.
func (n *names) judge(err error) (wait time.Duration, told error) {
	slow := errors.Is(err, context.DeadlineExceeded)
	if slow && !n.slow {
		n.slow = true
		return slowAgain, nil
	}
	n.slow = slow
	return registerAgain, err
}

// close makes the host forget and stops the server.
func (n *names) close() error {
	if n == nil {
		return nil
	}
	n.cancel()
	<-n.done
	return n.server.Close()
}
