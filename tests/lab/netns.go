package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// netnsInit is process 1 of a netns machine: it shields the host from what
// the programs do (host name, /etc/hosts, sockets below /run) and holds the
// namespaces while programs come and go.
const netnsInit = `
set -e
mount --make-rprivate /
hostname "$1"
mount -t tmpfs -o mode=755 tmpfs /run
for f in hosts resolv.conf; do
	if [ -e "/etc/$f" ]; then mount --bind "$2/$f" "/etc/$f"; fi
done
ip link set lo up
touch "$2/up"
while :; do sleep 3600 & wait $!; done
`

// AddNetns adds and starts a machine of namespaces. Programs are run in it by
// Command and Exec; they see the host's file system, but a /run, /etc/hosts
// and /etc/resolv.conf of their own. State of its programs belongs into Dir.
func (l *Lab) AddNetns(ctx context.Context, name string) (*Machine, error) {
	m, err := l.add(machineState{Name: name, Kind: KindNetns})
	if err != nil {
		return nil, err
	}
	files := map[string]string{"hosts": "127.0.0.1 localhost\n::1 localhost\n", "resolv.conf": "", "init": netnsInit}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(m.dir(), file), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("add machine %s: %w", name, err)
		}
	}
	return m, m.startNetns(ctx)
}

// Dir is a directory on the host for the machine's own files.
func (m *Machine) Dir() string { return m.dir() }

func (m *Machine) startNetns(ctx context.Context) error {
	if err := os.RemoveAll(filepath.Join(m.dir(), "up")); err != nil {
		return fmt.Errorf("start machine %s: %w", m.name, err)
	}
	ended, err := m.spawn("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc",
		"/bin/sh", filepath.Join(m.dir(), "init"), m.name, m.dir())
	if err != nil {
		return err
	}
	pid, err := m.waitLeader(ctx, ended)
	if err != nil {
		return err
	}
	for {
		if _, err := os.Stat(filepath.Join(m.dir(), "up")); err == nil {
			break
		}
		if err := pause(ctx, pollEvery); err != nil {
			return fmt.Errorf("start machine %s: %w: %s", m.name, err, m.consoleTail())
		}
	}
	s := m.state()
	// There may be one of a machine that had this number before: the kernel takes
	// its time to clean up after a network.
	_ = m.lab.state.ipInside(ctx, "link del "+s.port())
	err = m.lab.state.ipInside(ctx,
		fmt.Sprintf("link add %s type veth peer name %s netns %d", s.port(), s.nic(), pid),
		fmt.Sprintf("link set %s master %s up", s.port(), s.Bridge))
	if err != nil {
		return fmt.Errorf("connect machine %s: %w", m.name, err)
	}
	for _, args := range [][]string{
		{"addr", "add", fmt.Sprintf("%s/%d", m.Addr(), m.lab.state.Net.Bits()), "dev", s.nic()},
		{"link", "set", s.nic(), "up"},
		{"route", "add", "default", "via", m.lab.state.host(gateway).String()},
	} {
		if _, err := m.Exec(ctx, append([]string{"ip"}, args...)...); err != nil {
			return fmt.Errorf("connect machine %s: %w", m.name, err)
		}
	}
	return nil
}
