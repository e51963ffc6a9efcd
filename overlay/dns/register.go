package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Ways of a Registration.
const (
	ViaResolved = "systemd-resolved"
	ViaHosts    = "hosts"
)

// busTimeout bounds one exchange with systemd-resolved.
const busTimeout = 5 * time.Second

// RegisterConfig is what Register tells the host.
type RegisterConfig struct {
	Interface string         // that the names are reached through
	Server    netip.AddrPort // of a Server
	Domain    string         // that it answers for
	Bus       string         // D-Bus address; empty means the system bus
	Hosts     string         // hosts file; empty means /etc/hosts
	Log       *slog.Logger   // nil means slog.Default
}

// Registration is the host's knowledge of the mesh's names. Its methods may be
// called from any goroutine.
type Registration struct {
	log      *slog.Logger
	resolved *resolved // nil: by hosts
	running  sync.WaitGroup

	mu     sync.Mutex // guards the file and closed
	hosts  hostsFile
	closed bool
}

// Register makes the host resolve names of the domain: by asking the server
// through systemd-resolved, per interface, or else by a block in the hosts
// file, which Update fills. The error says why neither works.
func Register(ctx context.Context, cfg RegisterConfig) (*Registration, error) {
	if cfg.Hosts == "" {
		cfg.Hosts = "/etc/hosts"
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	reg := &Registration{log: cfg.Log, hosts: hostsFile{path: cfg.Hosts, key: cfg.Interface}}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	busErr := reg.useResolved(ctx, cfg)
	// In either case: a run that was killed may have left a block.
	hostsErr := reg.hosts.set(nil)
	if busErr == nil {
		if hostsErr != nil {
			cfg.Log.Debug("hosts file not cleaned", "err", hostsErr)
		}
		return reg, nil
	}
	if hostsErr == nil {
		hostsErr = writable(cfg.Hosts)
	}
	if hostsErr != nil {
		return nil, fmt.Errorf("register names: %w; let this user configure systemd-resolved (polkit actions org.freedesktop.resolve1.*), or switch names off with dns: false",
			errors.Join(busErr, hostsErr))
	}
	cfg.Log.Info("names go into the hosts file", "err", busErr)
	return reg, nil
}

// useResolved registers with systemd-resolved, and again whenever it restarts.
func (r *Registration) useResolved(ctx context.Context, cfg RegisterConfig) error {
	link, err := newResolved(ctx, cfg)
	if err != nil {
		return err
	}
	starts, err := link.starts(ctx)
	if err != nil {
		return errors.Join(err, link.conn.Close())
	}
	r.resolved = link
	r.running.Go(func() {
		for signal := range starts {
			if !isStart(signal) {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
			if err := link.apply(ctx); err != nil {
				r.log.Warn("names not registered after a restart of systemd-resolved", "err", err)
			}
			cancel()
		}
	})
	return nil
}

// Via tells how the host knows: ViaResolved or ViaHosts.
func (r *Registration) Via() string {
	if r.resolved != nil {
		return ViaResolved
	}
	return ViaHosts
}

// Update tells the host what is in the zone, where it does not ask the server.
func (r *Registration) Update(z *Zone) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resolved != nil || r.closed {
		return nil
	}
	if err := r.hosts.set(z.hostsLines()); err != nil {
		return fmt.Errorf("update names: %w", err)
	}
	return nil
}

// Close makes the host forget. Calling it again does nothing.
func (r *Registration) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.resolved == nil {
		return r.hosts.set(nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	err := errors.Join(r.resolved.revert(ctx), r.resolved.conn.Close())
	r.running.Wait()
	return err
}
