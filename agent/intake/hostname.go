package intake

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/store"
)

// namesOfNobody are what a machine is called that nobody has named: by the
// kernel, by systemd's fallback and by the image's (os-release, DEFAULT_HOSTNAME).
var namesOfNobody = []string{"", "(none)", "localhost", "localhost.localdomain", "kairos"}

// NameHost gives the machine its name where cloud-init cannot: when the name
// that a configuration gives is a template, whoever it came from, and when
// none gives one. It returns the name that was set, "" if the present one is
// right. set changes the kernel's name. A Problems as error says what is wrong
// with a template; the machine has the default name then.
func (m Machine) NameHost(set func(name string) error) (string, error) {
	files, err := config.Sources(m.Root)
	if err != nil {
		return "", err
	}
	var given config.Hostname
	all, loadErr := config.LoadSystem(m.ID(), files...)
	if loadErr == nil {
		given = all.Hostname()
	}
	if given.Name != "" && !given.Template {
		return "", nil // cloud-init's business
	}
	want := m.hostname(given)
	if loadErr != nil && strings.Contains(m.present(), "{{") { // cloud-init took the template as it stands
		want = m.hostname(config.Hostname{Name: m.defaultName()})
	}
	static := string(m.readText("etc/hostname"))
	if m.kernelName() == want && (static == want || static == "" && given.Name == "") {
		return "", loadErr
	}
	if err := m.writeHostname(want); err != nil {
		return "", err
	}
	if err := set(want); err != nil {
		return "", fmt.Errorf("set the host name: %w", err)
	}
	return want, loadErr
}

// hostname is what the machine is to be called: as configured, or as it is
// called already, or the default. Like cloud-init it takes the first label.
func (m Machine) hostname(given config.Hostname) string {
	if given.Name != "" {
		name, _, _ := strings.Cut(given.Name, ".")
		return name
	}
	if name := m.present(); name != "" {
		return name
	}
	return m.defaultName()
}

func (m Machine) defaultName() string {
	name, err := config.RenderHostname(config.DefaultHostname, m.ID())
	if err != nil {
		return "kairos" // no machine ID: nothing to tell it from others by
	}
	return name
}

// present is the name that somebody gave: in /etc/hostname, or a container's manager.
func (m Machine) present() string {
	for _, name := range []string{string(m.readText("etc/hostname")), m.kernelName()} {
		if !slices.Contains(namesOfNobody, name) {
			return name
		}
	}
	return ""
}

func (m Machine) kernelName() string { return string(m.readText("proc/sys/kernel/hostname")) }

// writeHostname replaces /etc/hostname, which everybody may read.
func (m Machine) writeHostname(name string) error {
	file := m.path("etc/hostname")
	tmp := file + ".kairos"
	if err := os.WriteFile(tmp, []byte(name+"\n"), 0o644); err != nil {
		return fmt.Errorf("write the host name: %w", err)
	}
	if err := os.Chmod(tmp, 0o644); err != nil { // whatever the umask
		return fmt.Errorf("write the host name: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("write the host name: %w", err)
	}
	if err := (store.OS{}).SyncDir(filepath.Dir(file)); err != nil {
		return fmt.Errorf("write the host name: sync directory: %w", err)
	}
	return nil
}
