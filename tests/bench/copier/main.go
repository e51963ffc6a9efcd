// Command copier is the least that a network in user space can do: it makes a TUN
// interface with all offloads in two network namespaces, its own and that of the file
// in its second argument, and copies whole super-packets between them.
//
//	copier tun0 /proc/PID/ns/net
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// superPacket is the most that the kernel gives or takes at once, with the virtio-net header.
const superPacket = 10 + 1<<16

const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: copier INTERFACE NAMESPACE")
		os.Exit(2)
	}
	if err := copyAll(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "copier:", err)
		os.Exit(1)
	}
}

func copyAll(name, namespace string) error {
	here, err := open(name)
	if err != nil {
		return err
	}
	there, err := openIn(namespace, name)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- pump(here, there) }()
	go func() { ended <- pump(there, here) }()
	return <-ended
}

// openIn makes the interface in another namespace.
func openIn(namespace, name string) (int, error) {
	ns, err := os.Open(namespace)
	if err != nil {
		return -1, err
	}
	defer ns.Close()
	type made struct {
		fd  int
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- made{-1, fmt.Errorf("enter %s: %w", namespace, err)}
			return
		}
		fd, err := open(name)
		done <- made{fd, err}
	}()
	m := <-done
	return m.fd, m.err
}

func open(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, fmt.Errorf("interface %q: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return -1, fmt.Errorf("make interface %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads); err != nil {
		return -1, fmt.Errorf("turn on the offloads of %s: %w", name, err)
	}
	return fd, nil
}

// pump copies one way until that fails. What the other interface does not take, as
// before it is up, is lost.
func pump(from, to int) error {
	runtime.LockOSThread()
	buf := make([]byte, superPacket)
	for {
		n, err := unix.Read(from, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read: %w", err)
		}
		if _, err := unix.Write(to, buf[:n]); errors.Is(err, unix.EBADFD) {
			return fmt.Errorf("write: %w", err)
		}
	}
}
