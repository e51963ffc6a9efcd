package poll

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// pair is a Descriptor and the far end of its socket.
func pair(t *testing.T) (d *Descriptor, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = New(fds[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = d.Close(), unix.Close(fds[1]) })
	return d, fds[1]
}

// eventually returns what f returns, if that is soon.
func eventually(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("it still waits")
		return nil
	}
}

// A wait ends with what it is for.
func TestWaits(t *testing.T) {
	for name, after := range map[string]time.Duration{"there already": 0, "late": 5 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			d, far := pair(t)
			send := func() {
				if _, err := unix.Write(far, []byte("x")); err != nil {
					t.Error(err)
				}
			}
			if after == 0 {
				send()
			} else {
				time.AfterFunc(after, send)
			}
			if err := eventually(t, d.Readable); err != nil {
				t.Fatal(err)
			}
			var got []byte
			err := d.Read(func(fd uintptr) bool {
				b := make([]byte, 10)
				n, err := unix.Read(int(fd), b)
				got = b[:max(n, 0)]
				return err != unix.EAGAIN
			})
			if err != nil || string(got) != "x" {
				t.Errorf("read %q: %v", got, err)
			}
			if err := eventually(t, d.Writable); err != nil {
				t.Error(err)
			}
		})
	}
}

// What comes while nobody waits wakes nobody, and the next wait hears of it.
func TestWakesWhoWaits(t *testing.T) {
	d, far := pair(t)
	wakes := func() bool {
		var n int
		err := d.readable.raw.Control(func(epoll uintptr) {
			var err error
			if n, err = unix.Poll([]unix.PollFd{{Fd: int32(epoll), Events: unix.POLLIN}}, 0); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Error(err)
		}
		return n > 0
	}
	for range 3 {
		if _, err := unix.Write(far, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if wakes() {
			t.Error("a packet wakes somebody, and nobody waits")
		}
		if err := eventually(t, d.Readable); err != nil {
			t.Fatal(err)
		}
	}
}

// Close ends all waits, waits for whoever uses the descriptor, and is the end of it.
func TestClose(t *testing.T) {
	d, _ := pair(t)
	var waits sync.WaitGroup
	errs := make(chan error, 3)
	for range cap(errs) {
		waits.Go(func() { errs <- d.Readable() })
	}
	fd, ok := d.Use()
	if !ok {
		t.Fatal("it cannot be used")
	}
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	waits.Wait()
	for range cap(errs) {
		if err := <-errs; !errors.Is(err, os.ErrClosed) {
			t.Errorf("a wait ends with %v", err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		t.Errorf("closed while it is in use: %v", err)
	}
	d.Done()
	if err := eventually(t, func() error { return <-closed }); err != nil {
		t.Error(err)
	}
	if _, ok := d.Use(); ok || !d.Closed() {
		t.Error("it can be used still")
	}
	for name, f := range map[string]func() error{
		"wait":    d.Readable,
		"control": func() error { return d.Control(func(uintptr) {}) },
		"write":   func() error { return d.Write(func(uintptr) bool { return true }) },
	} {
		if err := f(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// Threads rest for others, and come back.
func TestRest(t *testing.T) {
	Nap()
	Yield()
}
