package systemd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier tells systemd about this process: sd_notify(3). The zero value is
// ready for use, and outside of a Type=notify unit every method does nothing and
// returns nil. It is safe for concurrent use.
//
// An error means that systemd is there and could not be told; a daemon should
// log it once and go on, since systemd notices by itself what follows from it.
type Notifier struct{}

// Ready says that the daemon serves; systemd starts what is ordered after it.
func (Notifier) Ready() error {
	return notify(daemon.SdNotifyReady)
}

// Status sets the line that `systemctl status` shows. It is for people, and as
// public as any log line.
func (Notifier) Status(text string) error {
	return notify("STATUS=" + oneLine(text))
}

// Stopping says that the daemon has begun to shut down.
func (Notifier) Stopping() error {
	return notify(daemon.SdNotifyStopping)
}

// Watchdog gives systemd a sign of life, twice per WatchdogSec= of the unit, as
// long as alive returns nil, and returns nil when ctx ends. When alive fails the
// sign is withheld and the reason becomes the status line; if alive recovers
// within WatchdogSec=, nothing happens, otherwise systemd restarts the unit.
// alive is called on the calling goroutine, so an alive that blocks counts as
// dead - which is its purpose: let it pass through the loop it vouches for.
//
// Without a watchdog (another unit type, no systemd) it returns nil at once and
// never calls alive.
func Watchdog(ctx context.Context, alive func() error) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read watchdog settings: %w", err)
	}
	if limit == 0 {
		return nil
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		state := daemon.SdNotifyWatchdog
		if err := alive(); err != nil {
			state = "STATUS=not well: " + oneLine(err.Error())
		}
		if err := notify(state); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// oneLine keeps a text from being read as further assignments: the protocol
// separates them by line breaks.
func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
