package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Lab is one running lab. Its methods are for one goroutine at a time.
type Lab struct {
	state state
	log   io.Writer
}

// Options say what kind of lab to create.
type Options struct {
	Name string // lower case; empty: one is made up
	Host bool   // give this host a cable into the lab's network
	Keep bool   // outlive the process that creates it
	Log  io.Writer
}

// Info is what is to be known about a lab without opening it.
type Info struct {
	Name     string
	Net      netip.Prefix
	Machines []string
	Orphan   bool // a test made it and is gone
}

// Create makes an empty lab.
func Create(ctx context.Context, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("create a lab: needs root (namespaces, mounts, control groups)")
	}
	l := &Lab{log: o.Log}
	if l.log == nil {
		l.log = io.Discard
	}
	err := withLock(func() error {
		others, err := allStates()
		if err != nil {
			return err
		}
		if err := saveSysctls(len(others) == 0); err != nil {
			return err
		}
		l.state, err = newState(o, others)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create a lab: %w", err)
	}
	if err := l.state.makeNetwork(ctx); err != nil {
		return nil, errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}
	return l, nil
}

func newState(o Options, others []state) (state, error) {
	s := state{Name: o.Name, ID: newID(), Host: o.Host}
	if s.Name == "" {
		s.Name = "t" + s.ID
	}
	if !goodName.MatchString(s.Name) {
		return s, fmt.Errorf("the name %q: want lower-case letters, digits and dashes, at most 21", s.Name)
	}
	if slices.ContainsFunc(others, func(other state) bool { return other.Name == s.Name }) {
		return s, fmt.Errorf("a lab named %s is there already (remove it with `lab down %s`)", s.Name, s.Name)
	}
	var err error
	if !o.Keep {
		if s.Owner, err = thisProcess(); err != nil {
			return s, err
		}
	}
	if s.Net, err = freeNet(others); err != nil {
		return s, err
	}
	if err := os.MkdirAll(filepath.Join(s.dir(), "m"), 0o700); err != nil {
		return s, err
	}
	return s, s.save()
}

// Open finds a lab that another process created.
func Open(name string, log io.Writer) (*Lab, error) {
	s, err := readState(name)
	if err != nil {
		return nil, err
	}
	return &Lab{state: s, log: log}, nil
}

// List is every lab on this host.
func List() ([]Info, error) {
	all, err := allStates()
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, s := range all {
		i := Info{Name: s.Name, Net: s.Net, Orphan: s.Owner.PID != 0 && !s.Owner.alive()}
		for _, m := range s.Machines {
			i.Machines = append(i.Machines, m.Name)
		}
		infos = append(infos, i)
	}
	return infos, nil
}

// Name of the lab.
func (l *Lab) Name() string { return l.state.Name }

// ID is in the name of everything the lab made on the host.
func (l *Lab) ID() string { return l.state.ID }

// Dir is the lab's directory: a place for files that Down removes.
func (l *Lab) Dir() string { return l.state.dir() }

// Net is the lab's network: the underlay of its machines.
func (l *Lab) Net() netip.Prefix { return l.state.Net }

// AddrOf is the address of the machine that was or will be added as the
// number-th, counted from 1.
func (l *Lab) AddrOf(number int) netip.Addr { return l.state.machineAddr(machineState{Number: number}) }

// HostAddr is this host's address in the lab, if Options.Host asked for one.
func (l *Lab) HostAddr() netip.Addr { return l.state.host(hostPart) }

func (l *Lab) machineDir(name string) string { return filepath.Join(l.state.dir(), "m", name) }

// LinkOnHost puts a symbolic link into the host's file system for the time of
// the lab. Whatever else is at that path is left alone: then it says false.
func (l *Lab) LinkOnHost(path, target string) (bool, error) {
	if old, err := os.Readlink(path); err == nil && old == target {
		return true, nil
	}
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	}
	l.state.Links = append(l.state.Links, hostLink{Path: path, Target: target})
	if err := l.state.save(); err != nil {
		return false, err
	}
	if err := os.Symlink(target, path); err != nil {
		return false, fmt.Errorf("link %s: %w", path, err)
	}
	return true, nil
}

// Down removes the lab and everything it made: processes, mounts, namespaces,
// control groups, links on the host, files. It can be called again after an
// error or a crash.
func (l *Lab) Down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	group := filepath.Dir(l.state.group("x"))
	if err := killGroup(ctx, group); err != nil {
		return fmt.Errorf("take down lab %s: %w", l.state.Name, err)
	}
	for _, step := range []func() error{
		func() error { return unmountBelow(l.state.dir()) },
		func() error { return l.state.removeNetwork(ctx) },
		func() error { return retryBusy(ctx, func() error { return removeGroup(group) }) },
		l.removeLinks,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("take down lab %s: %w", l.state.Name, err)
		}
	}
	return withLock(func() error {
		if err := os.RemoveAll(l.state.dir()); err != nil {
			return fmt.Errorf("take down lab %s: %w", l.state.Name, err)
		}
		others, err := allStates()
		if err != nil || len(others) > 0 {
			return err
		}
		if err := restoreSysctls(); err != nil {
			return err
		}
		return removeHome()
	})
}

// removeHome leaves nothing behind the last lab.
func removeHome() error {
	if err := os.Remove(filepath.Join(Home, ".lock")); err != nil {
		return err
	}
	return os.Remove(Home)
}

func (l *Lab) removeLinks() error {
	for _, link := range l.state.Links {
		if target, err := os.Readlink(link.Path); err == nil && target == link.Target {
			if err := os.Remove(link.Path); err != nil {
				return fmt.Errorf("remove link: %w", err)
			}
		}
	}
	return nil
}

// retryBusy repeats what the kernel refuses for the moment: a control group
// stays busy until its last process is reaped.
func retryBusy(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

// unmountBelow unmounts everything below a directory, deepest first. Files
// are never removed while something is still mounted over them.
func unmountBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, p := range points {
		if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	if points, err = mountsBelow(dir); err != nil {
		return err
	}
	if len(points) > 0 {
		return fmt.Errorf("unmount %s: still mounted", points[0])
	}
	return nil
}

func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points) // later mounts lie over or inside earlier ones
	return points, lines.Err()
}

// RemoveOrphans takes down the labs whose tests are gone.
func RemoveOrphans(ctx context.Context, log io.Writer) error {
	all, err := allStates()
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Owner.PID == 0 || s.Owner.alive() {
			continue
		}
		fmt.Fprintf(log, "removing lab %s, left behind by a test that is gone\n", s.Name)
		if err := (&Lab{state: s, log: log}).Down(ctx); err != nil {
			return err
		}
	}
	return nil
}
