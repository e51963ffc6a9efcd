package poll

import (
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
	closed   atomic.Bool
	readable *event
	writable *event

	mu sync.RWMutex // held for reading while fd is in use
	fd int
}

var _ syscall.RawConn = (*Descriptor)(nil)

// New takes over fd, also where it fails. What fd is open on is settled by now: an
// attached queue of a TUN device, say.
func New(fd int) (*Descriptor, error) {
	d := &Descriptor{fd: fd}
	err := unix.SetNonblock(fd, true)
	if err != nil {
		err = fmt.Errorf("set non-blocking: %w", err)
	} else if d.readable, err = newEvent(fd, unix.EPOLLIN); err == nil {
		d.writable, err = newEvent(fd, unix.EPOLLOUT)
	}
	if err != nil {
		return nil, errors.Join(err, d.readable.close(), d.writable.close(), unix.Close(fd))
	}
	return d, nil
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
func (d *Descriptor) Readable() error { return d.wait(d.readable) }

// Writable waits until there may be room to write. After Close it returns os.ErrClosed.
func (d *Descriptor) Writable() error { return d.wait(d.writable) }

func (d *Descriptor) wait(e *event) error {
	err := e.wait()
	if d.Closed() {
		return os.ErrClosed
	}
	return err
}

// Close ends all waits, and returns when nobody uses the descriptor any more. Calling
// it again does nothing.
func (d *Descriptor) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	err := errors.Join(d.readable.close(), d.writable.close())
	d.mu.Lock()
	defer d.mu.Unlock()
	err = errors.Join(err, unix.Close(d.fd))
	d.fd = -1
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

// event is a state of a descriptor that can be waited for: an epoll(7) with one entry,
// which is armed for one wait, and which the runtime's poller watches. The descriptor
// itself would wake that one with every packet.
type event struct {
	file *os.File
	raw  syscall.RawConn
	ask  func(epoll uintptr) bool
}

// newEvent makes the event that fd has one of the events of epoll_ctl(2).
func newEvent(fd int, events uint32) (*event, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // else the runtime does not watch it
		return nil, errors.Join(fmt.Errorf("set epoll non-blocking: %w", err), unix.Close(epoll))
	}
	e := &event{file: os.NewFile(uintptr(epoll), "epoll")}
	e.ask = func(epoll uintptr) bool { return ask(epoll, fd, events) }
	if err = e.file.SetDeadline(time.Time{}); err == nil { // it is watched
		e.raw, err = e.file.SyscallConn()
	}
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch epoll: %w", err), e.close())
	}
	return e, nil
}

func (e *event) wait() error { return e.raw.Read(e.ask) }

// close ends all waits and those to come. It may be called for nil.
func (e *event) close() error {
	if e == nil {
		return nil
	}
	return e.file.Close()
}

// ask reports whether there was the event since ask last reported it. If not, epoll
// gets readable with the next one. The calls do not sleep.
func ask(epoll uintptr, fd int, events uint32) bool {
	var e unix.EpollEvent
	if n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&e)), 1, 0, 0, 0); n > 0 || errno != 0 {
		return true
	}
	e = unix.EpollEvent{Events: events | unix.EPOLLONESHOT}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, epoll, unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno != 0
}

// nap is about as long as a network card waits for more before it interrupts.
const nap = 30 * time.Microsecond

// Nap lets some more come in. It blocks the calling thread, and the scheduler does not
// hear of it: it would take longer to find another thread than the nap lasts. The
// kernel is told not to prolong this one.
func Nap() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t := unix.NsecToTimespec(int64(nap))
	slack(1)
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
	slack(0) // the usual one
}

func slack(ns uintptr) {
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, ns, 0)
}

// Yield lets others run who wait for the processor.
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
