package poll

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Descriptor is an open file descriptor in non-blocking mode. Its methods may be
// called from any goroutine.
type Descriptor struct {
	closed atomic.Bool

	mu   sync.RWMutex // held for reading while the descriptors are in use
	fd   int
	stop int // eventfd(2) that ends each wait
}

var _ syscall.RawConn = (*Descriptor)(nil)

// New takes over fd, also where it fails.
func New(fd int) (*Descriptor, error) {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make an eventfd: %w", err), unix.Close(fd))
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("set non-blocking: %w", err), unix.Close(fd), unix.Close(stop))
	}
	return &Descriptor{fd: fd, stop: stop}, nil
}

// Use returns the descriptor for a call that does not wait, and that Done ends. ok is
// false after Close.
func (d *Descriptor) Use() (fd int, ok bool) {
	if d.closed.Load() {
		return -1, false
	}
	d.mu.RLock()
	if d.fd < 0 {
		d.mu.RUnlock()
		return -1, false
	}
	return d.fd, true
}

// Done ends a Use.
func (d *Descriptor) Done() { d.mu.RUnlock() }

// Closed reports whether Close was called.
func (d *Descriptor) Closed() bool { return d.closed.Load() }

// Readable waits until there may be something to read, or an error to hear of. After
// Close it returns os.ErrClosed.
func (d *Descriptor) Readable() error { return d.wait(unix.POLLIN) }

// Writable waits until there may be room to write. After Close it returns os.ErrClosed.
func (d *Descriptor) Writable() error { return d.wait(unix.POLLOUT) }

func (d *Descriptor) wait(events int16) error {
	fd, ok := d.Use()
	if !ok {
		return os.ErrClosed
	}
	defer d.Done()
	fds := [...]unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(d.stop), Events: unix.POLLIN}}
	n, err := doze(fds[:])
	for n == 0 || err == unix.EINTR {
		n, err = unix.Poll(fds[:], -1)
	}
	switch {
	case err != nil:
		return os.NewSyscallError("poll", err)
	case fds[1].Revents != 0:
		return os.ErrClosed
	}
	return nil
}

// dozing is how long a thread waits before the scheduler hears of it. While packets
// come, waits are shorter, and the scheduler would spend as much time on finding out
// that a thread waits as the thread does on packets. It bounds for how long the
// collector may have to wait for the thread.
const dozing = time.Millisecond

func doze(fds []unix.PollFd) (int, error) {
	t := unix.NsecToTimespec(int64(dozing))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&t)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Close ends all waits, and returns when nobody uses the descriptor any more. Calling
// it again does nothing.
func (d *Descriptor) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, err := unix.Write(d.stop, one[:])
	d.mu.Lock()
	defer d.mu.Unlock()
	err = errors.Join(err, unix.Close(d.fd), unix.Close(d.stop))
	d.fd, d.stop = -1, -1
	return err
}

// Control implements syscall.RawConn.
func (d *Descriptor) Control(f func(fd uintptr)) error {
	fd, ok := d.Use()
	if !ok {
		return os.ErrClosed
	}
	defer d.Done()
	f(uintptr(fd))
	return nil
}

// Read implements syscall.RawConn.
func (d *Descriptor) Read(f func(fd uintptr) bool) error { return d.repeat(f, d.Readable) }

// Write implements syscall.RawConn.
func (d *Descriptor) Write(f func(fd uintptr) bool) error { return d.repeat(f, d.Writable) }

func (d *Descriptor) repeat(f func(fd uintptr) bool, wait func() error) error {
	for {
		fd, ok := d.Use()
		if !ok {
			return os.ErrClosed
		}
		done := f(uintptr(fd))
		d.Done()
		if done {
			return nil
		}
		if err := wait(); err != nil {
			return err
		}
	}
}

// nap is about as long as a network card waits for more before it interrupts.
const nap = 30 * time.Microsecond

// Nap lets some more come in. It blocks the calling thread, and the scheduler does not
// hear of it: it would take longer to find another thread than the nap lasts.
func Nap() {
	t := unix.NsecToTimespec(int64(nap))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}

// Yield lets others run who wait for the processor.
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// Own gives the calling goroutine a thread of its own until it ends, and all others a
// processor for the one that it keeps while it waits. Naps are not prolonged on it.
func Own() (end func()) {
	runtime.LockOSThread()
	processors(+1)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return func() { processors(-1) }
}

var owning struct {
	sync.Mutex
	threads int
}

func processors(change int) {
	owning.Lock()
	defer owning.Unlock()
	before := owning.threads > 0
	owning.threads += change
	if after := owning.threads > 0; after && !before {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	} else if before && !after {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - 1)
	}
}
