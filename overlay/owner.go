package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrStateInUse: another member runs from this StateDir. Two with one identity
// would take each other's connections away.
var ErrStateInUse = errors.New("another member runs from this state directory")

// Owner is a user whose files StateDir holds, although this process runs as
// another: a person behind sudo. The directory is found, read and written with
// that user's rights, so that whatever the user put there, links say, leads no
// further than the user gets alone. The nil Owner is this process's user.
type Owner struct{ UID, GID int }

// KeepState makes dir, mode 0700, where a StateDir is wanted and may not be
// possible. The error says why nothing can be kept there.
func KeepState(dir string, owner *Owner) error {
	err := owner.act(func() error { return os.MkdirAll(dir, 0o700) })
	if err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// lockState takes the state directory for this process; nil without one. Closing
// the file gives it back.
func lockState(dir string, owner *Owner) (lock *os.File, err error) {
	if dir == "" {
		return nil, nil
	}
	err = owner.act(func() (err error) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
		// Not followed: where others may write, a link could lead anywhere.
		lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lock the state: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrStateInUse
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), lock.Close())
	}
	return lock, nil
}

// act runs f with the file rights of the owner. They are a thread's own
// (setfsuid(2)), and going to them takes root's right to ignore modes away.
func (o *Owner) act(f func() error) (err error) {
	if o == nil {
		return f()
	}
	runtime.LockOSThread()
	uid, gid := unix.Geteuid(), unix.Getegid()
	back := func() error { return errors.Join(setFS(unix.SetfsuidRetUid, uid), setFS(unix.SetfsgidRetGid, gid)) }
	defer func() {
		if e := back(); e != nil {
			err = errors.Join(err, e)
			return // the thread ends with this goroutine, and serves no other
		}
		runtime.UnlockOSThread()
	}()
	if err := errors.Join(setFS(unix.SetfsgidRetGid, o.GID), setFS(unix.SetfsuidRetUid, o.UID)); err != nil {
		return err
	}
	return f()
}

// setFS makes id the thread's; the call itself never says whether it worked.
func setFS(set func(int) (int, error), id int) error {
	if _, err := set(id); err != nil {
		return fmt.Errorf("take the file rights of user or group %d: %w", id, err)
	}
	if now, err := set(-1); err != nil || now != id {
		return fmt.Errorf("take the file rights of user or group %d: %w", id, unix.EPERM)
	}
	return nil
}
