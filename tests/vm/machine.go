package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config says what a machine is made of.
type Config struct {
	Name  string // file names and messages
	Disks []Disk // the firmware boots the first one that it can boot
	LAN   *LAN   // nil: the machine has no network
	// Arguments is appended to the kernel's command line: systemd-stub takes it
	// from the SMBIOS tables, where a hypervisor puts it.
	Arguments string
	// Screen gives the machine a display (Machine.LitPixels), and leaves it to its own
	// system whether that or the serial port is its first console. Without, it is the
	// serial port, where Console reads what a start says.
	Screen bool
	Memory int // MiB; 0: 1536
	CPUs   int // 0: 2
	// Bus is what the disks are on, and Card the model of the network card as QEMU calls
	// it ("e1000e", "rtl8139"). The zero values are paravirtual ones, which emulate fastest.
	Bus  Bus
	Card string
}

// Bus is what connects a disk.
type Bus string

// The buses besides the paravirtual one.
const (
	NVMe Bus = "nvme"
	USB  Bus = "usb"
)

// device is QEMU's for a disk.
func (b Bus) device() string {
	switch b {
	case NVMe:
		return "nvme"
	case USB:
		return "usb-storage,bus=xhci.0"
	}
	return "virtio-blk-pci"
}

// Machine is a virtual machine; it is off when made. Its methods are for one
// goroutine at a time, apart from Kill, Running and those that run a command.
type Machine struct {
	Name    string
	Console *Console

	config Config
	rack   *Rack
	dir    string
	port   int // in the LAN
	log    *os.File
	login  login

	mu      sync.Mutex
	cpu     time.Duration // of runs that have ended
	process *os.Process
	off     chan struct{} // closed when the machine is off
	qmp     *monitor
}

// errOff says that the machine is not running.
var errOff = errors.New("the machine is off")

// NewMachine makes a machine with the given disks: what it writes to them goes
// to files of its own.
func (r *Rack) NewMachine(ctx context.Context, config Config) (*Machine, error) {
	m := &Machine{Name: config.Name, config: config, rack: r, dir: filepath.Join(r.dir, config.Name), off: make(chan struct{})}
	close(m.off)
	if err := m.make(ctx); err != nil {
		return nil, fmt.Errorf("make machine %s: %w", m.Name, err)
	}
	r.machines = append(r.machines, m)
	return m, nil
}

func (m *Machine) make(ctx context.Context) error {
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return err
	}
	vars := filepath.Join(m.rack.Tools.dir, "usr/share/OVMF/OVMF_VARS_4M.fd")
	if err := copyFile(vars, m.file("vars.fd")); err != nil {
		return err
	}
	for i, d := range m.config.Disks {
		if err := d.create(ctx, m.rack.Tools, m.disk(i)); err != nil {
			return err
		}
	}
	if m.config.LAN != nil {
		var err error
		if m.port, err = m.config.LAN.addPort(ctx); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(m.file("console.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	m.log, m.Console = log, newConsole(log)
	return nil
}

func (m *Machine) file(name string) string { return filepath.Join(m.dir, name) }
func (m *Machine) disk(i int) string       { return m.file(fmt.Sprintf("disk%d.qcow2", i)) }

// Addr is the machine's address in its LAN, as DHCP gives it out.
func (m *Machine) Addr() netip.Addr { return portAddr(m.port) }

// Start switches the machine on.
func (m *Machine) Start(ctx context.Context) error {
	if m.Running() {
		return fmt.Errorf("start machine %s: it is running", m.Name)
	}
	if err := m.start(ctx); err != nil {
		m.Kill()
		return fmt.Errorf("start machine %s: %w; QEMU says: %s", m.Name, err, m.complaints())
	}
	return nil
}

func (m *Machine) start(ctx context.Context) error {
	if err := os.RemoveAll(m.file("qmp")); err != nil {
		return err
	}
	listener, err := net.Listen("unix", m.file("qmp"))
	if err != nil {
		return err
	}
	defer listener.Close()
	complaints, err := os.Create(m.file("qemu.log"))
	if err != nil {
		return err
	}
	defer complaints.Close()
	args := m.rack.Tools.inside(m.commandLine()...)
	if m.config.LAN != nil {
		args = m.config.LAN.within(args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = m.Console, complaints
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	ended, err := startTied(cmd)
	if err != nil {
		return err
	}
	off := make(chan struct{})
	m.mu.Lock()
	m.process, m.off, m.qmp = cmd.Process, off, nil
	m.mu.Unlock()
	m.Console.plug(input)
	go func() {
		<-ended // how QEMU ended does not matter: a machine that was killed is off
		m.mu.Lock()
		m.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		m.mu.Unlock()
		m.Console.unplug()
		close(off)
	}()
	conn, err := accept(ctx, listener, off)
	if err != nil {
		return err
	}
	go func() {
		<-off
		_ = conn.Close()
	}()
	m.qmp, err = newMonitor(ctx, conn)
	return err
}

// accept waits until QEMU calls, which it does as soon as it has understood its
// command line.
func accept(ctx context.Context, l net.Listener, off <-chan struct{}) (net.Conn, error) {
	type call struct {
		conn net.Conn
		err  error
	}
	called := make(chan call, 1)
	go func() {
		conn, err := l.Accept() // ends with the listener at the latest
		called <- call{conn, err}
	}()
	select {
	case c := <-called:
		return c.conn, c.err
	case <-off:
		return nil, errOff
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (m *Machine) complaints() string {
	b, err := os.ReadFile(m.file("qemu.log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// commandLine is QEMU's. Writes reach the host's memory when the guest flushes
// and are not forced further (cache=unsafe): what a guest has flushed survives
// the end of QEMU, and what it has not may be lost, as in a disk's cache.
func (m *Machine) commandLine() []string {
	c := m.config
	args := []string{"qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-name", m.Name,
		"-machine", "q35,smm=off", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off,svm=off", // a fifth level of page tables and modules for guests' guests are work for nothing
		"-smp", strconv.Itoa(cmp.Or(c.CPUs, 2)), "-m", strconv.Itoa(cmp.Or(c.Memory, 1536)),
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
		"-drive", "if=pflash,format=raw,unit=1,file=" + m.file("vars.fd"),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-qmp", "unix:" + m.file("qmp"),
		"-device", "virtio-rng-pci",
	}
	if c.Bus == USB {
		args = append(args, "-device", "qemu-xhci,id=xhci")
	}
	for i, d := range c.Disks {
		if d.Ejected {
			continue
		}
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=disk%d,format=qcow2,cache=unsafe,discard=unmap,file=%s", i, m.disk(i)),
			"-device", fmt.Sprintf("%s,drive=disk%d,serial=disk%d,bootindex=%d", c.Bus.device(), i, i, i+1))
	}
	if c.LAN != nil {
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=lan,ifname=%s,script=no,downscript=no", portName(m.port)),
			"-device", fmt.Sprintf("%s,id=nic,netdev=lan,mac=%s,romfile=", cmp.Or(c.Card, "virtio-net-pci"), portMAC(m.port)))
	}
	// An emulated processor speculates about nothing.
	extra := "mitigations=off"
	if c.Screen {
		args = append(args, "-device", "VGA,id=screen,romfile=")
	} else {
		extra += " console=ttyS0"
	}
	extra = strings.TrimSpace(extra + " " + c.Arguments)
	return append(args, "-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra="+strings.ReplaceAll(extra, ",", ",,"))
}

// Off is closed when the machine has gone off.
func (m *Machine) Off() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.off
}

// Running says whether the machine is on.
func (m *Machine) Running() bool {
	select {
	case <-m.Off():
		return false
	default:
		return true
	}
}

// CPUTime is how much of the host's processors the machine has used until it was
// last switched off: unlike the time on the clock, it depends little on what else
// the host does.
func (m *Machine) CPUTime() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cpu
}

// Kill cuts the power: QEMU gets no chance to do anything more.
func (m *Machine) Kill() {
	m.mu.Lock()
	process, off := m.process, m.off
	m.mu.Unlock()
	if process != nil {
		_ = process.Kill() // it may have ended by itself
	}
	<-off
	m.login.drop()
}

// PowerButton presses the power button and waits until the machine is off.
func (m *Machine) PowerButton(ctx context.Context) error {
	if err := m.ask(ctx, "system_powerdown", nil); err != nil {
		return err
	}
	select {
	case <-m.Off():
		m.login.drop()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("power off machine %s: %w; the end of its console:\n%s", m.Name, context.Cause(ctx), m.Console.Tail())
	}
}

// Reset presses the reset button.
func (m *Machine) Reset(ctx context.Context) error {
	m.login.drop()
	return m.ask(ctx, "system_reset", nil)
}

// Cable plugs the network cable in or pulls it.
func (m *Machine) Cable(ctx context.Context, in bool) error {
	return m.ask(ctx, "set_link", map[string]any{"name": "nic", "up": in})
}

func (m *Machine) ask(ctx context.Context, command string, arguments any) error {
	if !m.Running() {
		return fmt.Errorf("%s: %w", m.Name, errOff)
	}
	if err := m.qmp.do(ctx, command, arguments); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return nil
}

// Eject takes a disk out, and Insert puts it back, for the next start.
func (m *Machine) Eject(disk int) { m.config.Disks[disk].Ejected = true }

// Insert undoes Eject.
func (m *Machine) Insert(disk int) { m.config.Disks[disk].Ejected = false }
