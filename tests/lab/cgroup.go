package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hierarchy is one mounted control group tree of the host.
type hierarchy struct {
	Dir         string // where it is mounted
	Controllers string // the mount option that makes the same one again; "" for version 2
}

// hierarchies lists the host's: one in version 2, one per controller in 1.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list control groups: %w", err)
	}
	defer f.Close()
	var all []hierarchy
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || !strings.HasPrefix(l[4], "/sys/fs/cgroup") {
			continue
		}
		switch r[0] {
		case "cgroup2":
			all = append(all, hierarchy{Dir: l[4]})
		case "cgroup":
			var names []string
			for _, o := range strings.Split(r[2], ",") {
				if o != "rw" && o != "ro" && o != "xattr" && !strings.HasPrefix(o, "release_agent=") {
					names = append(names, o)
				}
			}
			all = append(all, hierarchy{Dir: l[4], Controllers: strings.Join(names, ",")})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list control groups: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("list control groups: none is mounted below /sys/fs/cgroup")
	}
	return all, nil
}

// Hierarchies is how the host mounts its control groups: the name below
// /sys/fs/cgroup -> the mount option that names the controllers, or "" for
// version 2.
func Hierarchies() (map[string]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, h := range all {
		names[strings.TrimPrefix(strings.TrimPrefix(h.Dir, "/sys/fs/cgroup"), "/")] = h.Controllers
	}
	return names, nil
}

// group is a path below the root of every hierarchy. A machine has one of its
// own in each: it becomes the root of the machine's control group namespace,
// and it is how every process of the machine is found again.
func (s state) group(machine string) string { return filepath.Join("kairos-lab-"+s.ID, machine) }

// makeGroup creates the group and returns its directory in every hierarchy.
func makeGroup(group string) ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, h := range all {
		dir := h.Dir
		for _, part := range strings.Split(group, "/") {
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, fmt.Errorf("make control group: %w", err)
			}
			if err := passDown(h, parent, dir); err != nil {
				return nil, fmt.Errorf("make control group: %w", err)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// passDown gives a new group what it does not inherit by itself.
func passDown(h hierarchy, parent, dir string) error {
	switch {
	case h.Controllers == "": // version 2: children get the controllers that the parent hands on
		b, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, c := range strings.Fields(string(b)) {
			// One that cannot be handed on (used by version 1, say) is done without.
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+c), 0o644)
		}
	case slices.Contains(strings.Split(h.Controllers, ","), "cpuset"): // version 1 starts with an empty set
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(parent, name))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// groupDirs is the group's directory in every hierarchy, existing ones only.
func groupDirs(group string) ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, h := range all {
		dir := filepath.Join(h.Dir, group)
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for control group: %w", err)
		}
	}
	return dirs, nil
}

// groupPIDs is every process in the group or below it, in any hierarchy.
func groupPIDs(group string) ([]int, error) {
	dirs, err := groupDirs(group)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, top := range dirs {
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || e.Name() != "cgroup.procs" {
				return err
			}
			b, err := os.ReadFile(path)
			// Gone, or a threaded group of version 2, whose processes its parent lists.
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP) {
				return nil
			}
			for _, f := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list processes of %s: %w", group, err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// killGroup ends every process of the group for good.
func killGroup(ctx context.Context, group string) error {
	if err := freeze(group, false); err != nil {
		return err
	}
	for {
		pids, err := groupPIDs(group)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("end process %d of %s: %w", pid, group, err)
			}
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("end the processes %v of %s: %w", pids, group, err)
		}
	}
}

// removeGroup removes the empty groups, deepest first.
func removeGroup(group string) error {
	tops, err := groupDirs(group)
	if err != nil {
		return err
	}
	for _, top := range tops {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("remove control group: %w", err)
		}
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove control group: %w", err)
			}
		}
	}
	return nil
}

// freeze stops or resumes every process of the group at once.
func freeze(group string, on bool) error {
	dirs, err := groupDirs(group)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		for name, words := range map[string][2]string{"freezer.state": {"THAWED", "FROZEN"}, "cgroup.freeze": {"0", "1"}} {
			word := words[0]
			if on {
				word = words[1]
			}
			err := os.WriteFile(filepath.Join(dir, name), []byte(word), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("freeze %s: %w", group, err)
			}
		}
	}
	return nil
}

// pause waits a moment between two looks at something that sends no event.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
