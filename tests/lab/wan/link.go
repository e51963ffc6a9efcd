package wan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config describes a link.
type Config struct {
	A, B       End
	AtoB, BtoA Path
	MTU        int    // of the devices; 0: 1500
	Seed       uint64 // of chance
}

// Stats is what became of all frames so far.
type Stats struct{ AtoB, BtoA Count }

// direction is what goes from one end to the other.
type direction struct {
	from, to *tap

	mu     sync.Mutex // guards what follows
	shaper shaper
	sky    sky
	spare  [][]byte // buffers that nothing is in
}

// Link is a link that works until Close.
type Link struct {
	began    time.Time
	room     int // of a buffer: a VLAN tag fits as well
	dirs     [2]*direction
	bell     int            // an eventfd: something is due earlier than was known
	asleep   sync.Mutex     // guards what follows
	alarm    time.Duration  // when the deliverer wakes by itself, or awake
	working  sync.WaitGroup // all goroutines
	closing  chan struct{}
	once     sync.Once
	closeErr error
	stop     func() bool
}

const (
	never = time.Duration(1<<63 - 1)
	awake = time.Duration(0) // nothing is due earlier: nobody rings
)

// grain is how much later than due a frame may be delivered, so that one wake-up
// does for several.
const grain = 100 * time.Microsecond

// Start makes the link. It works until its context ends or it is closed.
func Start(ctx context.Context, c Config) (*Link, error) {
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if err := errors.Join(c.AtoB.check(), c.BtoA.check()); err != nil {
		return nil, fmt.Errorf("make a wan link: %w", err)
	}
	a, err := openTap(c.A, c.MTU)
	if err != nil {
		return nil, fmt.Errorf("make a wan link: %w", err)
	}
	b, err := openTap(c.B, c.MTU)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a wan link: %w", err), a.close())
	}
	l := &Link{began: time.Now(), room: c.MTU + ethernetHeader + 4, closing: make(chan struct{}), alarm: awake}
	l.dirs = [2]*direction{
		{from: a, to: b, shaper: newShaper(c.AtoB, 2*c.Seed)},
		{from: b, to: a, shaper: newShaper(c.BtoA, 2*c.Seed+1)},
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, errors.Join(fmt.Errorf("make a wan link: %w", err), a.close(), b.close())
	}
	for _, d := range l.dirs {
		l.working.Go(func() { l.read(d) })
	}
	l.working.Go(l.deliver)
	l.stop = context.AfterFunc(ctx, func() { _ = l.Close() })
	return l, nil
}

// Shape changes what the link does to frames that enter from now on.
func (l *Link) Shape(aToB, bToA Path) error {
	if err := errors.Join(aToB.check(), bToA.check()); err != nil {
		return fmt.Errorf("shape a wan link: %w", err)
	}
	for i, p := range []Path{aToB, bToA} {
		d := l.dirs[i]
		d.mu.Lock()
		d.shaper.Path = p
		d.mu.Unlock()
	}
	return nil
}

// Stats tells what became of all frames so far.
func (l *Link) Stats() Stats {
	var c [2]Count
	for i, d := range l.dirs {
		d.mu.Lock()
		c[i] = d.shaper.count
		d.mu.Unlock()
	}
	return Stats{c[0], c[1]}
}

// Close removes the link and its devices. Frames on their way are lost.
func (l *Link) Close() error {
	l.once.Do(func() {
		if l.stop != nil {
			l.stop()
		}
		close(l.closing)
		l.ring()
		l.closeErr = errors.Join(l.dirs[0].from.close(), l.dirs[1].from.close())
		l.working.Wait()
		l.closeErr = errors.Join(l.closeErr, unix.Close(l.bell))
	})
	return l.closeErr
}

func (l *Link) now() time.Duration { return time.Since(l.began) }

// read takes frames of one direction in until its device is closed, or ends with its
// namespace.
func (l *Link) read(d *direction) {
	buf := make([]byte, l.room)
	for {
		n, err := d.from.read(buf)
		if err != nil {
			return
		}
		now := l.now()
		d.mu.Lock()
		due, copies := d.shaper.enter(now, n)
		for range copies {
			d.sky.push(due, append(d.buffer(l.room), buf[:n]...))
		}
		d.mu.Unlock()
		if copies > 0 {
			l.wakeBy(due)
		}
	}
}

// buffer returns an empty buffer. The caller holds mu.
func (d *direction) buffer(room int) []byte {
	if n := len(d.spare); n > 0 {
		b := d.spare[n-1]
		d.spare = d.spare[:n-1]
		return b
	}
	return make([]byte, 0, room)
}

// wakeBy sees to it that the deliverer is awake at the time due.
func (l *Link) wakeBy(due time.Duration) {
	l.asleep.Lock()
	early := due < l.alarm
	if early {
		l.alarm = due
	}
	l.asleep.Unlock()
	if early {
		l.ring()
	}
}

func (l *Link) ring() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(l.bell, one[:]) // full: it has rung
}

// deliver hands over what is due, and sleeps until something is. The runtime's
// timers are too coarse for it.
func (l *Link) deliver() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		next := min(l.deliverDue(l.dirs[0]), l.deliverDue(l.dirs[1]))
		l.setAlarm(next)
		// What has come in before the alarm was set did not ring.
		next = min(next, l.dirs[0].next(), l.dirs[1].next())
		if !l.sleep(next) {
			return
		}
		l.setAlarm(awake)
	}
}

func (l *Link) setAlarm(at time.Duration) {
	l.asleep.Lock()
	l.alarm = at
	l.asleep.Unlock()
}

// sleep returns at the time until, or when the bell rings. It is false when the link
// is closing.
func (l *Link) sleep(until time.Duration) bool {
	var timeout *unix.Timespec
	if until != never {
		t := unix.NsecToTimespec(int64(max(until-l.now(), grain)))
		timeout = &t
	}
	fds := [1]unix.PollFd{{Fd: int32(l.bell), Events: unix.POLLIN}}
	if n, _ := unix.Ppoll(fds[:], timeout, nil); n > 0 {
		var rung [8]byte
		_, _ = unix.Read(l.bell, rung[:])
	}
	select {
	case <-l.closing:
		return false
	default:
		return true
	}
}

// next is when to look again.
func (d *direction) next() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sky.len() == 0 {
		return never
	}
	return d.sky.next()
}

// deliverDue delivers what is due in one direction and returns when to look again.
func (l *Link) deliverDue(d *direction) (next time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if d.sky.len() == 0 {
			return never
		}
		if next := d.sky.next(); next > l.now() {
			return next
		}
		frame := d.sky.pop()
		d.mu.Unlock()
		err := d.to.write(frame)
		d.mu.Lock()
		if err == nil {
			d.shaper.count.Delivered++
		} else {
			d.shaper.count.Refused++
		}
		d.spare = append(d.spare, frame[:0])
	}
}
