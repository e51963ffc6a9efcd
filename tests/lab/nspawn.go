package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
)

const pollEvery = 50 * time.Millisecond

// NspawnConfig is a machine with an operating system of its own.
type NspawnConfig struct {
	Name string `json:"-"`
	// Image is the root file system, a directory. It is shared and never
	// written to: the machine has a layer of its own above it.
	Image string `json:"image"`
	// Disks are directories inside the machine that lie on the host's disk
	// itself, as a layered file system cannot carry another one.
	Disks []string `json:"disks,omitempty"`
	// Binds are read-only: path on the host -> path in the machine.
	Binds map[string]string `json:"binds,omitempty"`
	// Arguments are those of the machine's process 1: what its kernel's command
	// line would be.
	Arguments []string `json:"arguments,omitempty"`
	// Credentials are files on the host that become system credentials.
	Credentials map[string]string `json:"credentials,omitempty"`
	// BeforeBoot is a shell script that the host runs before each boot, with the
	// machine's root directory as its argument: what firmware and a boot loader do.
	BeforeBoot string `json:"before_boot,omitempty"`
	// RealCard makes the machine's network card look like hardware, and has
	// systemd-networkd give it its address.
	RealCard bool `json:"real_card,omitempty"`
	// Files are written into the machine's layer before its first start, Seeds
	// onto its Disks.
	Files []File `json:"-"`
	Seeds []File `json:"-"`
}

// File is one file to put into a machine; Link makes it a symbolic link.
type File struct {
	Path string
	Text string
	Link string
	Mode fs.FileMode // 0: 0644
}

// AddNspawn adds and boots a machine. It returns as soon as its init runs.
func (l *Lab) AddNspawn(ctx context.Context, c NspawnConfig) (*Machine, error) {
	if err := raiseInotify(); err != nil {
		return nil, fmt.Errorf("add machine %s: %w", c.Name, err)
	}
	m, err := l.add(machineState{Name: c.Name, Kind: KindNspawn, Nspawn: &c})
	if err != nil {
		return nil, err
	}
	if err := m.makeDisk(ctx, c); err != nil {
		return nil, fmt.Errorf("add machine %s: %w", c.Name, err)
	}
	return m, m.Start(ctx)
}

// raiseInotify makes room for several systems that all run as the host's root
// user; the default of 128 instances is used up by two of them.
func raiseInotify() error {
	return os.WriteFile("/proc/sys/fs/inotify/max_user_instances", []byte("8192"), 0o644)
}

func (m *Machine) makeDisk(ctx context.Context, c NspawnConfig) error {
	for _, d := range []string{"root", "upper", "work", "disks"} {
		if err := os.Mkdir(filepath.Join(m.dir(), d), 0o755); err != nil {
			return err
		}
	}
	for _, d := range c.Disks {
		if err := os.MkdirAll(m.disk(d), 0o755); err != nil {
			return err
		}
	}
	if err := m.mountRoot(ctx); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Join(m.dir(), "root"))
	if err != nil {
		return err
	}
	defer root.Close()
	files := append([]File{{Path: "/etc/hostname", Text: m.name + "\n"}}, c.Files...)
	for _, f := range append(files, m.labFiles()...) {
		if err := put(root, f); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	for _, d := range c.Disks {
		if err := root.MkdirAll(strings.TrimPrefix(d, "/"), 0o755); err != nil {
			return err
		}
	}
	return m.seed(c)
}

func (m *Machine) seed(c NspawnConfig) error {
	for _, f := range c.Seeds {
		i := slices.IndexFunc(c.Disks, func(d string) bool { return strings.HasPrefix(f.Path, d+"/") })
		if i < 0 {
			return fmt.Errorf("write %s: it is on none of the disks", f.Path)
		}
		disk, err := os.OpenRoot(m.disk(c.Disks[i]))
		if err != nil {
			return err
		}
		f.Path = strings.TrimPrefix(f.Path, c.Disks[i])
		if err := errors.Join(put(disk, f), disk.Close()); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	return nil
}

// ImagesInUse are the root file systems that machines of any lab lie upon.
func ImagesInUse() (map[string]bool, error) {
	all, err := allStates()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, s := range all {
		for _, m := range s.Machines {
			if m.Nspawn != nil {
				used[m.Nspawn.Image] = true
			}
		}
	}
	return used, nil
}

func (m *Machine) disk(path string) string {
	return filepath.Join(m.dir(), "disks", strings.ReplaceAll(strings.Trim(path, "/"), "/", "-"))
}

func (m *Machine) mountRoot(ctx context.Context) error {
	points, err := mountsBelow(m.dir())
	if err != nil || slices.Contains(points, filepath.Join(m.dir(), "root")) {
		return err
	}
	_, err = run.Do(ctx, run.Cmd{Dir: m.dir(), Args: []string{
		"mount", "-t", "overlay", "overlay", "-o", "lowerdir=" + m.state().Nspawn.Image + ",upperdir=upper,workdir=work", filepath.Join(m.dir(), "root"),
	}})
	return err
}

func put(root *os.Root, f File) error {
	name := strings.TrimPrefix(f.Path, "/")
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.Link != "" {
		return root.Symlink(f.Link, name)
	}
	if f.Mode == 0 {
		f.Mode = 0o644
	}
	if err := root.WriteFile(name, []byte(f.Text), f.Mode); err != nil {
		return err
	}
	return root.Chmod(name, f.Mode) // whatever the umask
}

// Start boots a machine that is off; a netns machine starts empty.
func (m *Machine) Start(ctx context.Context) error {
	if m.state().Kind == KindNetns {
		return m.startNetns(ctx)
	}
	if err := m.mountRoot(ctx); err != nil {
		return fmt.Errorf("start machine %s: %w", m.name, err)
	}
	for name, script := range map[string]string{"run": m.bootScript(), "before-boot": m.state().Nspawn.BeforeBoot} {
		if err := os.WriteFile(filepath.Join(m.dir(), name), []byte(script), 0o600); err != nil {
			return fmt.Errorf("start machine %s: %w", m.name, err)
		}
	}
	ended, err := m.spawn("/bin/sh", filepath.Join(m.dir(), "run"))
	if err != nil {
		return err
	}
	_, err = m.waitLeader(ctx, ended)
	return err
}

// Stop shuts the machine down in order, and pulls the plug if that takes
// longer than the context allows.
func (m *Machine) Stop(ctx context.Context) error {
	pid, err := m.Leader()
	if errors.Is(err, ErrOff) {
		return nil
	}
	if err != nil {
		return err
	}
	if m.state().Kind == KindNspawn {
		const sigrtminPlus4 = syscall.Signal(34 + 4) // systemd: power off
		if err := syscall.Kill(pid, sigrtminPlus4); err != nil {
			return fmt.Errorf("stop machine %s: %w", m.name, err)
		}
		if err := m.waitOff(ctx); err != nil {
			return errors.Join(err, m.Kill(context.WithoutCancel(ctx)))
		}
	}
	return m.Kill(ctx)
}

// Reboot asks the machine's own init to reboot, and waits until the next one runs.
func (m *Machine) Reboot(ctx context.Context) error {
	old, err := m.Leader()
	if err != nil {
		return err
	}
	const sigrtminPlus5 = syscall.Signal(34 + 5) // systemd: reboot
	if err := syscall.Kill(old, sigrtminPlus5); err != nil {
		return fmt.Errorf("reboot machine %s: %w", m.name, err)
	}
	for {
		if pid, err := m.Leader(); err == nil && pid != old {
			return nil
		}
		if err := pause(ctx, pollEvery); err != nil {
			return fmt.Errorf("reboot machine %s: %w: %s", m.name, err, m.consoleTail())
		}
	}
}

// bootScript starts the machine, and again after each reboot: its network
// namespace, and with it the cable, is a new one each time, as with a real
// machine.
func (m *Machine) bootScript() string {
	var b strings.Builder
	fmt.Fprintf(&b, "lab=%s own=%s port=%s nic=%s dir=%s\n",
		m.lab.state.namespace(), m.namespace(), m.state().port(), m.state().nic(), m.dir())
	b.WriteString(`while :; do
	/bin/sh "$dir/before-boot" "$dir/root" || exit 1
	ip netns del "$own" 2>/dev/null
	ip netns add "$own" || exit 1
	ip -n "$lab" link del "$port" 2>/dev/null
	ip -n "$lab" link add "$port" type veth peer name "$nic" netns "$own" || exit 1
	ip -n "$lab" link set "$port" master "$(cat "$dir/bridge")" up || exit 1
	SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes `)
	b.WriteString(m.unifiedSetting() + " systemd-nspawn " + strings.Join(m.nspawnArgs(), " "))
	b.WriteString(` </dev/null
	code=$?
	[ "$code" = 133 ] || exit "$code"
done
`)
	return b.String()
}

// namespace is the name of a booted machine's own network namespace.
func (m *Machine) namespace() string {
	return fmt.Sprintf("%sm%d", m.lab.state.namespace(), m.state().Number)
}

func (m *Machine) nspawnArgs() []string {
	s := m.state()
	args := []string{
		"--quiet", "--directory=" + filepath.Join(m.dir(), "root"),
		"--machine=" + m.lab.state.ID + "-" + m.name, "--hostname=" + m.name,
		"--register=no", "--keep-unit", "--notify-ready=no", "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only",
		"--network-namespace-path=/run/netns/" + m.namespace(),
		"--capability=all", "--drop-capability=CAP_SYS_MODULE,CAP_SYS_TIME", `--system-call-filter="@keyring bpf"`,
		"--bind=/dev/kmsg", "--bind=/dev/net/tun",
	}
	for _, d := range s.Nspawn.Disks {
		args = append(args, "--bind="+m.disk(d)+":"+d)
	}
	for from, to := range s.Nspawn.Binds {
		args = append(args, "--bind-ro="+from+":"+to)
	}
	for name, file := range s.Nspawn.Credentials {
		args = append(args, "--load-credential="+name+":"+file)
	}
	args = append(args, "-b")
	if !onlyVersion2() {
		args = append(args, "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
	}
	return append(args, s.Nspawn.Arguments...)
}

// onlyVersion2 tells whether the host has nothing but control groups version 2.
func onlyVersion2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

func (m *Machine) unifiedSetting() string {
	if onlyVersion2() {
		return "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1"
	}
	return "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=0"
}

// labFiles is what every machine gets: its address, and units that make sense
// on a real machine but not here switched off.
func (m *Machine) labFiles() []File {
	const units = "/etc/systemd/system/"
	files := m.addressFiles(units)
	// The devices are the host's, and no link is waited for by networkd.
	for _, unit := range []string{"systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket",
		"systemd-udev-trigger.service", "systemd-networkd-wait-online.service"} {
		files = append(files, File{Path: units + unit, Link: "/dev/null"})
	}
	return files
}

// addressFiles give the machine its address: by a unit of the lab's own, which is
// done early, or as a real machine has it.
func (m *Machine) addressFiles(units string) []File {
	s := m.state()
	if s.Nspawn.RealCard {
		return m.cardFiles(units)
	}
	net := fmt.Sprintf("[Unit]\nDescription=Address on the lab's network\nDefaultDependencies=no\nBefore=network-pre.target network.target\nWants=network-pre.target\n"+
		"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=ip addr add %s/%d dev %[3]s\nExecStart=ip link set %[3]s up\nExecStart=ip route add default via %s\n",
		m.Addr(), m.lab.state.Net.Bits(), s.nic(), m.lab.state.host(gateway))
	return []File{
		{Path: units + "kairos-lab-network.service", Text: net},
		{Path: units + "sysinit.target.wants/kairos-lab-network.service", Link: "../kairos-lab-network.service"},
	}
}
