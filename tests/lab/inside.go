package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InNet runs f in the machine's network namespace: sockets that f opens belong
// to it for good, also when they are used elsewhere later. f must open them
// itself, not in goroutines of its own.
func (m *Machine) InNet(f func() error) error {
	pid, err := m.Leader()
	if err != nil {
		return err
	}
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return fmt.Errorf("enter the network of %s: %w", m.name, err)
	}
	defer there.Close()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so that no other
		// goroutine finds itself in the wrong namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network of %s: %w", m.name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Dial connects from inside the machine; addr is a literal address and port.
func (m *Machine) Dial(network, addr string) (net.Conn, error) {
	var c net.Conn
	err := m.InNet(func() (err error) {
		c, err = net.DialTimeout(network, addr, 5*time.Second)
		return err
	})
	return c, err
}

// Get fetches a URL from inside the machine. host replaces the Host header
// unless it is empty. An answer that is not 200 is an error.
func (m *Machine) Get(ctx context.Context, url, host string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(_ context.Context, network, addr string) (net.Conn, error) { return m.Dial(network, addr) },
	}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("get %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get %s: %s: %s", url, resp.Status, b)
	}
	return string(b), nil
}

// Inner is the process that a started Command runs inside the machine, seen
// from the host: a PID for signals and /proc.
func Inner(cmd *exec.Cmd) (int, error) {
	if cmd.Process == nil {
		return 0, errors.New("find the process in the machine: not started")
	}
	pid := cmd.Process.Pid
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return 0, fmt.Errorf("find the process in the machine: %w", err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	inner, err := strconv.Atoi(first)
	if err != nil {
		return 0, errors.New("find the process in the machine: it has not started yet, or ended")
	}
	return inner, nil
}

// Signal sends a signal to the process that a started Command runs inside the machine.
func Signal(cmd *exec.Cmd, sig syscall.Signal) error {
	pid, err := Inner(cmd)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, sig)
}
