package dns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
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
// file, which Update fills. Where neither works it is an *UnavailableError.
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
	// In either case: a run that was killed may have left a block, here or for
	// another interface.
	hostsErr := reg.hosts.clean(aliveInterfaces())
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
		cfg.Log.Debug("names cannot be registered", "bus", busErr, "hosts", hostsErr)
		return nil, &UnavailableError{Path: cfg.Hosts, Bus: busErr, Hosts: hostsErr}
	}
	cfg.Log.Info("names go into the hosts file", "err", busErr)
	return reg, nil
}

// UnavailableError is Register's when neither way works on this host. Its text is
// one line for a person; what to do depends on who asks.
type UnavailableError struct {
	Path       string // of the hosts file
	Bus, Hosts error  // why not by systemd-resolved, why not by the file
}

// Error implements error.
func (e *UnavailableError) Error() string {
	return "names of the network do not resolve on this machine: " + plainBus(e.Bus) + ", and " + plainHosts(e.Path, e.Hosts)
}

// Unwrap gives errors.Is the causes.
func (e *UnavailableError) Unwrap() []error { return []error{e.Bus, e.Hosts} }

// Denied reports whether systemd-resolved refuses this user.
func (e *UnavailableError) Denied() bool { return denied(e.Bus) }

func denied(err error) bool {
	var reply dbus.Error
	return errors.As(err, &reply) && (reply.Name == "org.freedesktop.DBus.Error.AccessDenied" ||
		strings.HasPrefix(reply.Name, "org.freedesktop.DBus.Error.InteractiveAuthorization"))
}

func plainBus(err error) string {
	var reply dbus.Error
	switch {
	case denied(err):
		return "systemd-resolved does not take them from this user"
	case errors.Is(err, context.DeadlineExceeded):
		return "systemd-resolved does not answer"
	case errors.As(err, &reply) && reply.Name != "org.freedesktop.DBus.Error.ServiceUnknown" && reply.Name != "org.freedesktop.DBus.Error.NameHasNoOwner":
		return "systemd-resolved does not take them (" + reply.Error() + ")"
	}
	return "there is no systemd-resolved to ask"
}

func plainHosts(path string, err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return path + " is read-only"
	case errors.Is(err, fs.ErrPermission):
		return path + " cannot be written by this user"
	case errors.Is(err, fs.ErrNotExist):
		return "there is no " + path
	}
	return path + " cannot be written: " + err.Error()
}

// aliveInterfaces says which interfaces there are. Where that cannot be found
// out, all are.
func aliveInterfaces() func(name string) bool {
	all, err := net.Interfaces()
	return func(name string) bool {
		return err != nil || slices.ContainsFunc(all, func(i net.Interface) bool { return i.Name == name })
	}
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
