package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

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
