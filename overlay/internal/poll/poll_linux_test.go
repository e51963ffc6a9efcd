package poll

import (
	"errors"
	"os"
	"runtime"
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

// A wait ends with what it is for, both before the scheduler hears of it and after.
func TestWaits(t *testing.T) {
	for name, after := range map[string]time.Duration{"there already": 0, "soon": dozing / 4, "late": 5 * dozing} {
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

// All threads of their own together cost the others one processor, and give it back.
func TestOwn(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	var owners sync.WaitGroup
	seen := make(chan int, 2)
	leave := make(chan struct{})
	for range cap(seen) {
		owners.Go(func() {
			defer Own()()
			seen <- runtime.GOMAXPROCS(0)
			<-leave
		})
	}
	for range cap(seen) {
		if n := <-seen; n != before+1 {
			t.Errorf("%d processors, want %d", n, before+1)
		}
	}
	close(leave)
	owners.Wait()
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("%d processors after it, want %d", n, before)
	}
	Nap() // both return
	Yield()
}
