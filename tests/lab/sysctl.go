package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// hostSysctls are the kernel's host-wide settings that a kubelet or a booting
// system inside a machine changes. They belong to no namespace, so the lab
// puts them back.
var hostSysctls = []string{
	"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys",
	"kernel/pid_max", "kernel/core_pattern", "kernel/core_uses_pid", "kernel/printk", "kernel/sysrq", "kernel/kptr_restrict",
	"vm/overcommit_memory", "vm/panic_on_oom", "vm/max_map_count",
	"fs/protected_hardlinks", "fs/protected_symlinks", "fs/protected_regular", "fs/protected_fifos", "fs/file-max", "fs/nr_open",
	"fs/inotify/max_user_instances", "fs/inotify/max_user_watches",
}

func sysctlFile() string { return filepath.Join(Home, "sysctl.json") }

// saveSysctls writes the host's settings down before the first lab.
func saveSysctls(first bool) error {
	if !first {
		return nil
	}
	if _, err := os.Stat(sysctlFile()); err == nil {
		return nil // an earlier lab crashed on its way down: its values are the host's own
	}
	values := map[string]string{}
	for _, name := range hostSysctls {
		b, err := os.ReadFile("/proc/sys/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("save kernel settings: %w", err)
		}
		values[name] = strings.TrimSpace(string(b))
	}
	b, err := json.Marshal(values)
	if err != nil {
		return fmt.Errorf("save kernel settings: %w", err)
	}
	return os.WriteFile(sysctlFile(), b, 0o600)
}

// restoreSysctls puts back what differs, after the last lab.
func restoreSysctls() error {
	b, err := os.ReadFile(sysctlFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore kernel settings: %w", err)
	}
	var values map[string]string
	if err := json.Unmarshal(b, &values); err != nil {
		return fmt.Errorf("restore kernel settings: %w", err)
	}
	for name, want := range values {
		path := "/proc/sys/" + name
		now, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("restore kernel settings: %w", err)
		}
		if strings.TrimSpace(string(now)) == want {
			continue
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			return fmt.Errorf("restore kernel settings: %w", err)
		}
	}
	return os.Remove(sysctlFile())
}
