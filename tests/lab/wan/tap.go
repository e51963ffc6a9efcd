package wan

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// End is one end of a link.
type End struct {
	Netns string         // path of the network namespace: /proc/PID/ns/net, /run/netns/NAME
	Name  string         // of the device in it: at most 15 bytes; "": wan0
	Addrs []netip.Prefix // of the device
}

// NetnsOf is the path of a process's network namespace.
func NetnsOf(pid int) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

// kernelQueue is how many frames the kernel keeps for the reader.
const kernelQueue = 20000

// tap is a TAP device whose other side this process is.
type tap struct {
	file *os.File
	conn syscall.RawConn
}

// openTap makes an end's device and brings it up.
func openTap(e End, mtu int) (*tap, error) {
	if e.Name == "" {
		e.Name = "wan0"
	}
	fd := -1
	err := inNetns(e.Netns, func() (err error) {
		if fd, err = newTap(e.Name); err != nil {
			return err
		}
		return setUp(e, mtu)
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("make %s in %s: %w", e.Name, e.Netns, err)
	}
	t := &tap{file: os.NewFile(uintptr(fd), e.Name)}
	if t.conn, err = t.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, t.file.Close())
	}
	return t, nil
}

// inNetns runs f on a thread that is in the namespace, and not used again.
func inNetns(path string, f func() error) error {
	there, err := os.Open(path)
	if err != nil {
		return err
	}
	defer there.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// newTap makes a device in the thread's namespace. Without IFF_VNET_HDR it has
// neither segmentation nor checksum offload.
func newTap(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return fd, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fd, fmt.Errorf("TUNSETIFF: %w", err)
	}
	return fd, nil
}

// setUp configures the device in the thread's namespace, which the child inherits.
func setUp(e End, mtu int) error {
	lines := []string{fmt.Sprintf("link set %s mtu %d txqueuelen %d", e.Name, mtu, kernelQueue)}
	for _, a := range e.Addrs {
		line := fmt.Sprintf("addr add %s dev %s", a, e.Name)
		if a.Addr().Is6() {
			line += " nodad"
		}
		lines = append(lines, line)
	}
	lines = append(lines, fmt.Sprintf("link set %s up", e.Name))
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	return nil
}

// read waits for a frame.
func (t *tap) read(buf []byte) (n int, err error) {
	rerr := t.conn.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), buf)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if rerr != nil {
		return 0, rerr
	}
	return n, err
}

// write hands a frame to the kernel, which takes it at once or not at all.
func (t *tap) write(frame []byte) (err error) {
	werr := t.conn.Control(func(fd uintptr) { _, err = unix.Write(int(fd), frame) })
	if werr != nil {
		return werr
	}
	return err
}

func (t *tap) close() error { return t.file.Close() }
