package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ListenUnix makes the socket at path, mode 0600, and gives it to the user
// owner (negative: leaves it to the process's own). A socket that a dead
// process left behind is replaced, one that somebody serves is ErrInUse. A lock
// beside it (path.lock) keeps two starters from replacing each other's.
// Closing the listener removes all that was made: socket, lock and directories.
func ListenUnix(path string, owner int) (net.Listener, error) {
	l := &unixListener{}
	var err error
	if l.made, err = makeReachable(filepath.Dir(path)); err == nil {
		if l.lock, err = lockFile(path + ".lock"); err == nil {
			l.UnixListener, err = bind(path, owner)
		}
	}
	if err != nil {
		l.cleanUp()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// makeReachable makes dir and what is missing above it, mode 0755 whatever the
// umask: a bridge's socket, which is 0600 itself, is for the user behind sudo.
// Directories that are there stay as they are. It returns those it made, the
// innermost first.
func makeReachable(dir string) (made []string, err error) {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if made, err = makeReachable(filepath.Dir(dir)); err != nil {
		return made, err
	}
	switch err := os.Mkdir(dir, 0o755); {
	case errors.Is(err, fs.ErrExist): // somebody was faster
		return made, nil
	case err != nil:
		return made, err
	}
	return append([]string{dir}, made...), os.Chmod(dir, 0o755)
}

// lockFile opens path under an exclusive lock that ends with the process. Its
// holder removes the file at the end, so whoever got the lock looks whether it
// is still the file at path, and else tries again with the new one.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, ErrInUse
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if sameFile(f, path) {
			return f, nil
		}
		_ = f.Close()
	}
}

func sameFile(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

func bind(path string, owner int) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := protect(path, owner); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// protect gives the socket at path mode 0600 and its owner. Between bind and
// this somebody may connect: that one still fails the credentials check. Where
// the directory is another user's, a link may lie at path by now: what is
// changed is the very socket or nothing.
func protect(path string, owner int) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("protect the socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // O_PATH: there is nothing to flush
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("protect the socket: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("protect the socket: somebody has put something else there")
	}
	// fchmod(2) does not take an O_PATH descriptor, its name in /proc leads to the same file.
	if err := os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o600); err != nil {
		return fmt.Errorf("protect the socket: %w", err)
	}
	if owner < 0 {
		return nil
	}
	if err := unix.Fchownat(fd, "", owner, -1, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("give the socket to user %d: %w", owner, err)
	}
	return nil
}

// removeStale removes a socket that nobody listens on. Anything else that lies
// at path is left alone and reported.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the old socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return errors.New("something that is not a socket lies there")
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove the stale socket: %w", err)
		}
		return nil
	}
	return fmt.Errorf("probe the old socket: %w", err)
}

type unixListener struct {
	*net.UnixListener
	lock *os.File
	made []string // directories, the innermost first
	once sync.Once
}

// Close implements net.Listener.
func (l *unixListener) Close() error {
	err := l.UnixListener.Close() // removes the socket
	l.once.Do(l.cleanUp)
	return err
}

// cleanUp removes the lock last, so that whoever gets it finds the socket gone.
func (l *unixListener) cleanUp() {
	if l.lock != nil {
		_ = os.Remove(l.lock.Name())
		_ = l.lock.Close()
	}
	for _, dir := range l.made {
		if os.Remove(dir) != nil {
			return // somebody else uses it by now
		}
	}
}

// PeerUID returns the user at the other end of a unix connection, by SO_PEERCRED
// (unix(7)): whoever it was at the time of connect.
func PeerUID(conn net.Conn) (int, error) {
	if l, ok := conn.(*limitedConn); ok {
		conn = l.Conn
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix connection")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("reach the socket: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("reach the socket: %w", err)
	}
	if credErr != nil {
		return 0, fmt.Errorf("read the peer's credentials: %w", credErr)
	}
	return int(cred.Uid), nil
}
