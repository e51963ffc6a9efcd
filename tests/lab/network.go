package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// gateway and hostPart are the last bytes of the bridge's and the host's own
// addresses; machines follow from firstMachine on.
const (
	gateway      = 1
	hostPart     = 2
	firstMachine = 11
	maxMachines  = 200
)

const mainBridge = "br0"

func (s state) namespace() string { return "kl" + s.ID }
func (s state) hostLinkName() string {
	return "kl" + s.ID + "h"
}

// port is the bridge's end of a machine's cable, nic the machine's.
func (m machineState) port() string { return fmt.Sprintf("port%d", m.Number) }
func (m machineState) nic() string  { return fmt.Sprintf("lan%d", m.Number) }

func (s state) machineAddr(m machineState) netip.Addr { return s.host(firstMachine - 1 + m.Number) }

// ip runs iproute2's ip on a batch of commands, one per line.
func ip(ctx context.Context, lines ...string) error {
	_, err := run.Do(ctx, run.Cmd{Args: []string{"ip", "-batch", "-"}, Stdin: strings.NewReader(strings.Join(lines, "\n") + "\n")})
	return err
}

func (s state) ipInside(ctx context.Context, lines ...string) error {
	_, err := run.Do(ctx, run.Cmd{
		Args: []string{"ip", "-n", s.namespace(), "-batch", "-"}, Stdin: strings.NewReader(strings.Join(lines, "\n") + "\n"),
	})
	return err
}

// makeNetwork makes the namespace with the bridge and, if asked for, the
// host's cable into it.
func (s state) makeNetwork(ctx context.Context) error {
	if err := ip(ctx, "netns add "+s.namespace()); err != nil {
		return fmt.Errorf("make the lab's network: %w", err)
	}
	err := s.ipInside(ctx,
		"link set lo up",
		"link add "+mainBridge+" type bridge forward_delay 0 mcast_snooping 0",
		fmt.Sprintf("addr add %s/%d dev %s", s.host(gateway), s.Net.Bits(), mainBridge),
		"link set "+mainBridge+" up",
	)
	if err != nil {
		return fmt.Errorf("make the lab's network: %w", err)
	}
	if !s.Host {
		return nil
	}
	err = ip(ctx, fmt.Sprintf("link add %s type veth peer name host netns %s", s.hostLinkName(), s.namespace()),
		fmt.Sprintf("addr add %s/%d dev %s", s.host(hostPart), s.Net.Bits(), s.hostLinkName()),
		fmt.Sprintf("link set %s up", s.hostLinkName()))
	if err != nil {
		return fmt.Errorf("connect the host to the lab: %w", err)
	}
	if err := s.ipInside(ctx, "link set host master "+mainBridge+" up"); err != nil {
		return fmt.Errorf("connect the host to the lab: %w", err)
	}
	return nil
}

func (s state) removeNetwork(ctx context.Context) error {
	if _, err := os.Stat("/sys/class/net/" + s.hostLinkName()); err == nil {
		if err := ip(ctx, "link del "+s.hostLinkName()); err != nil {
			return fmt.Errorf("remove the host's link into the lab: %w", err)
		}
	}
	spaces, err := filepath.Glob("/run/netns/" + s.namespace() + "*")
	if err != nil {
		return fmt.Errorf("remove the lab's network: %w", err)
	}
	for _, path := range spaces {
		if err := ip(ctx, "netns del "+filepath.Base(path)); err != nil {
			return fmt.Errorf("remove the lab's network: %w", err)
		}
	}
	return nil
}

// Partition splits the network: each group of machines reaches its own members
// only; machines in no group stay together with the host. A new partition
// replaces the one before. Links stay up, as behind a switch that was split.
func (l *Lab) Partition(ctx context.Context, groups ...[]string) error {
	bridge := map[string]string{}
	for i, group := range groups {
		name := fmt.Sprintf("br%d", i+1)
		// The bridge may be there from the partition before.
		_ = l.state.ipInside(ctx, "link add "+name+" type bridge forward_delay 0 mcast_snooping 0")
		if err := l.state.ipInside(ctx, "link set "+name+" up"); err != nil {
			return fmt.Errorf("partition: %w", err)
		}
		for _, m := range group {
			bridge[m] = name
		}
	}
	for i := range l.state.Machines {
		m := &l.state.Machines[i]
		m.Bridge = mainBridge
		if b, ok := bridge[m.Name]; ok {
			m.Bridge = b
			delete(bridge, m.Name)
		}
		if err := l.plug(ctx, *m); err != nil {
			return fmt.Errorf("partition: %w", err)
		}
	}
	for name := range bridge {
		return fmt.Errorf("partition: no machine %s in the lab", name)
	}
	return l.state.save()
}

// Heal ends a partition.
func (l *Lab) Heal(ctx context.Context) error { return l.Partition(ctx) }

// plug puts a machine's port on its bridge, now if it is there, and at its
// next boot.
func (l *Lab) plug(ctx context.Context, m machineState) error {
	file := filepath.Join(l.machineDir(m.Name), "bridge")
	if err := os.WriteFile(file, []byte(m.Bridge), 0o600); err != nil {
		return err
	}
	out, err := run.Out(ctx, "ip", "-n", l.state.namespace(), "-o", "link", "show")
	if err != nil || !strings.Contains(out, ": "+m.port()+"@") {
		return err
	}
	return l.state.ipInside(ctx, "link set "+m.port()+" master "+m.Bridge)
}
