package underlay

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// portTries is how often a port is drawn that must be free for all addresses, over UDP
// and TCP both.
const portTries = 16

// listenAll opens every address for UDP and TCP, on one port where it is to be drawn.
func (u *Underlay) listenAll() error {
	drawn := false
	for _, at := range u.cfg.Listen {
		if at.Addr().Zone() != "" {
			return fmt.Errorf("listen on %s: %w", at, ErrZone)
		}
		drawn = drawn || at.Port() == 0
	}
	var err error
	for range portTries {
		if err = u.tryListen(); err == nil || !drawn || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		if closeErr := u.closeListeners(); closeErr != nil {
			return errors.Join(err, closeErr)
		}
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w (%w)", ErrPortTaken, err)
	}
	return err
}

// tryListen opens every address once. An address family that the machine does not have
// is passed over as long as something can be opened.
func (u *Underlay) tryListen() error {
	port := uint16(0) // that was drawn
	var missing []error
	for _, at := range u.cfg.Listen {
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		draw := at.Port() == 0
		if draw {
			at = netip.AddrPortFrom(at.Addr(), port)
		}
		real, err := u.listen(at)
		switch {
		case err == nil:
			u.bound = append(u.bound, real)
			if draw {
				port = real.Port()
			}
		case errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EADDRNOTAVAIL):
			missing = append(missing, err)
			u.log.Info("listen address is not available here", "addr", at.String(), "err", err)
		default:
			return err
		}
	}
	if len(u.bound) == 0 {
		return errors.Join(missing...)
	}
	return nil
}

// listen opens one address for UDP and TCP on the same port, and returns it with that.
func (u *Underlay) listen(at netip.AddrPort) (netip.AddrPort, error) {
	if !u.cfg.NoQUIC {
		e, err := u.listenQUIC(at)
		if err != nil {
			return at, fmt.Errorf("listen on %s (UDP): %w", at, err)
		}
		u.endpoints = append(u.endpoints, e)
		at = e.local
	}
	if !u.cfg.NoTCP {
		l, err := u.listenTCP(at)
		if err != nil {
			return at, fmt.Errorf("listen on %s (TCP): %w", at, err)
		}
		u.tcp = append(u.tcp, l)
		at = addrPortOf(l.Addr())
	}
	return at, nil
}

// closeListeners closes what a try has opened.
func (u *Underlay) closeListeners() error {
	var errs []error
	for _, l := range u.tcp {
		errs = append(errs, l.Close())
	}
	for _, e := range u.endpoints {
		errs = append(errs, e.close())
	}
	u.tcp, u.endpoints, u.bound = nil, nil, nil
	return errors.Join(errs...)
}
