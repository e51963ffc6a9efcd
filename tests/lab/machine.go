package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kinds of machines.
const (
	KindNetns  = "netns"
	KindNspawn = "nspawn"
)

// Machine is one machine of a lab.
type Machine struct {
	lab  *Lab
	name string
}

// ErrOff says that the machine is not running.
var ErrOff = errors.New("the machine is off")

// Machine finds a machine by its name.
func (l *Lab) Machine(name string) (*Machine, error) {
	if l.find(name) == nil {
		return nil, fmt.Errorf("no machine %s in lab %s", name, l.state.Name)
	}
	return &Machine{lab: l, name: name}, nil
}

// Machines are all machines, in the order in which they were added.
func (l *Lab) Machines() []*Machine {
	var all []*Machine
	for _, m := range l.state.Machines {
		all = append(all, &Machine{lab: l, name: m.Name})
	}
	return all
}

func (l *Lab) find(name string) *machineState {
	i := slices.IndexFunc(l.state.Machines, func(m machineState) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &l.state.Machines[i]
}

// add gives a new machine its number, and thereby its address.
func (l *Lab) add(m machineState) (*Machine, error) {
	if !goodName.MatchString(m.Name) {
		return nil, fmt.Errorf("add machine %q: want lower-case letters, digits and dashes, at most 21", m.Name)
	}
	if l.find(m.Name) != nil {
		return nil, fmt.Errorf("add machine %s: there is one of that name", m.Name)
	}
	for _, other := range l.state.Machines {
		m.Number = max(m.Number, other.Number)
	}
	m.Number++
	if m.Number > maxMachines {
		return nil, fmt.Errorf("add machine %s: the lab is full", m.Name)
	}
	m.Bridge = mainBridge
	if err := os.MkdirAll(l.machineDir(m.Name), 0o700); err != nil {
		return nil, fmt.Errorf("add machine %s: %w", m.Name, err)
	}
	l.state.Machines = append(l.state.Machines, m)
	if err := l.state.save(); err != nil {
		return nil, err
	}
	return &Machine{lab: l, name: m.Name}, os.WriteFile(filepath.Join(l.machineDir(m.Name), "bridge"), []byte(m.Bridge), 0o600)
}

func (m *Machine) state() machineState { return *m.lab.find(m.name) }
func (m *Machine) group() string       { return m.lab.state.group(m.name) }
func (m *Machine) dir() string         { return m.lab.machineDir(m.name) }

// Name is the machine's host name.
func (m *Machine) Name() string { return m.name }

// Kind is KindNetns or KindNspawn.
func (m *Machine) Kind() string { return m.state().Kind }

// Processes are the processes of the machine as the host numbers them.
func (m *Machine) Processes() ([]int, error) { return groupPIDs(m.group()) }

// Addr is the machine's address on the lab's network: its underlay.
func (m *Machine) Addr() netip.Addr { return m.lab.state.machineAddr(m.state()) }

// ConsoleFile is where the machine's console is written to.
func (m *Machine) ConsoleFile() string { return filepath.Join(m.dir(), "console.log") }

// Leader is the process, seen from the host, that is process 1 of the machine.
func (m *Machine) Leader() (int, error) {
	pids, err := groupPIDs(m.group())
	if err != nil {
		return 0, err
	}
	depth, err := pidDepth()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		ns, err := pidsOf(pid)
		// One level below ours and the first there. Pods are further down.
		if err == nil && len(ns) == depth+1 && ns[depth] == 1 {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("find process 1 of %s: %w", m.name, ErrOff)
}

func pidDepth() (int, error) {
	ns, err := pidsOf(os.Getpid())
	return len(ns), err
}

// pidsOf is the process's number in every PID namespace it is in, ours first.
func pidsOf(pid int) ([]int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		var ns []int
		for _, f := range strings.Fields(rest) {
			n, err := strconv.Atoi(f)
			if err != nil {
				return nil, err
			}
			ns = append(ns, n)
		}
		return ns, nil
	}
	return nil, fmt.Errorf("read /proc/%d/status: no NSpid", pid)
}

// Root is a path on the host that leads to the machine's own root directory,
// with all its mounts, as long as it runs: for files and unix sockets.
func (m *Machine) Root() (string, error) {
	pid, err := m.Leader()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/root", pid), nil
}

// Command is a command to be run inside the machine, as root. It ends with
// its context, and with the machine at the latest.
func (m *Machine) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	pid, err := m.Leader()
	if err != nil {
		return nil, err
	}
	dirs, err := groupDirs(m.group())
	if err != nil {
		return nil, err
	}
	// The shell joins the machine's groups; nsenter becomes the command, but
	// for a new PID namespace it has to fork: SIGTERM reaches the child by its
	// process group.
	script := joinGroups(dirs) + `exec "$@"`
	enter := []string{"-c", script, "enter", "nsenter", "-t", strconv.Itoa(pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"}
	cmd := exec.CommandContext(ctx, "/bin/sh", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		// Machines without a disk of their own share /root, and must not share who they are.
		"XDG_STATE_HOME=" + filepath.Join(m.dir(), "state")}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd, nil
}

// joinGroups is shell that puts the shell itself into the groups.
func joinGroups(dirs []string) string {
	var b strings.Builder
	for _, d := range dirs {
		fmt.Fprintf(&b, "echo $$ >%s/cgroup.procs || exit 125; ", d)
	}
	return b.String()
}

// Exec runs a command inside the machine and returns what it wrote to stdout.
// stderr is part of the error.
func (m *Machine) Exec(ctx context.Context, args ...string) (string, error) {
	cmd, err := m.Command(ctx, args...)
	if err != nil {
		return "", err
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: run %s: %w: %s", m.name, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// Pause stops every process of the machine in its tracks, as a hypervisor or
// a lid would. Its connections stay open.
func (m *Machine) Pause() error { return freeze(m.group(), true) }

// Resume ends a Pause.
func (m *Machine) Resume() error { return freeze(m.group(), false) }

// Kill ends the machine as a power cut does. What it wrote to disk stays.
func (m *Machine) Kill(ctx context.Context) error {
	if err := killGroup(ctx, m.group()); err != nil {
		return fmt.Errorf("kill machine %s: %w", m.name, err)
	}
	return retryBusy(ctx, func() error { return removeGroup(m.group()) })
}

// Remove kills the machine and forgets it together with its disk.
func (m *Machine) Remove(ctx context.Context) error {
	if err := m.Kill(ctx); err != nil {
		return err
	}
	if err := unmountBelow(m.dir()); err != nil {
		return err
	}
	if err := os.RemoveAll(m.dir()); err != nil {
		return fmt.Errorf("remove machine %s: %w", m.name, err)
	}
	l := m.lab
	l.state.Machines = slices.DeleteFunc(l.state.Machines, func(s machineState) bool { return s.Name == m.name })
	return l.state.save()
}

// spawn starts a program of the host that outlives this one, inside the
// machine's control groups, with its output in the machine's console file. The
// channel says when it ended.
func (m *Machine) spawn(args ...string) (<-chan error, error) {
	dirs, err := makeGroup(m.group())
	if err != nil {
		return nil, err
	}
	console, err := os.OpenFile(m.ConsoleFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer console.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", joinGroups(dirs) + `exec "$@"`, "machine"}, args...)...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start machine %s: %w", m.name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, nil
}

// waitLeader waits until the machine has a process 1.
func (m *Machine) waitLeader(ctx context.Context, ended <-chan error) (int, error) {
	for {
		pid, err := m.Leader()
		if err == nil || !errors.Is(err, ErrOff) {
			return pid, err
		}
		select {
		case err := <-ended:
			return 0, fmt.Errorf("start machine %s: it ended at once: %v: %s", m.name, err, m.consoleTail())
		default:
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return 0, fmt.Errorf("start machine %s: %w: %s", m.name, err, m.consoleTail())
		}
	}
}

// waitOff waits until nothing of the machine runs.
func (m *Machine) waitOff(ctx context.Context) error {
	for {
		pids, err := groupPIDs(m.group())
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("wait for machine %s to end: %w", m.name, err)
		}
	}
}

func (m *Machine) consoleTail() string {
	b, err := os.ReadFile(m.ConsoleFile())
	if err != nil {
		return err.Error()
	}
	const keep = 1500
	if len(b) > keep {
		b = b[len(b)-keep:]
	}
	return strings.TrimSpace(string(b))
}
