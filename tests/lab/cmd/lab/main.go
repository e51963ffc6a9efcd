// Command lab starts, stops, splits, inspects and removes machines on this host.
// See package lab for what it makes. It is behind `make up`, `make add` and
// `make down`; run it without arguments for its verbs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

const usage = `usage: lab [-name NAME] VERB

  build                    build the programs, the OS image and k3s
  up [COUNT]               start machines from the OS image with one config.yaml and wait for the cluster
  add                      start one more machine with the same config.yaml
  down                     remove the lab and everything it made
  status                   how far each machine is
  exec MACHINE COMMAND...  run a command inside a machine
  start | stop | kill | reboot | pause | resume | remove MACHINE
  partition A,B C ...      split the network: each group reaches its own members only
  heal                     end the partition
  list                     all labs on this host
  clean                    remove labs whose tests are gone
  start-time               seconds until three machines are ready, next to k3s started by hand
`

var errUsage = errors.New("usage")

type verb func(ctx context.Context, name string, args []string) error

var verbs = map[string]verb{
	"build": build, "up": up, "add": add, "down": down, "status": status, "exec": execute,
	"start": onMachine((*lab.Machine).Start), "stop": onMachine((*lab.Machine).Stop), "kill": onMachine((*lab.Machine).Kill),
	"reboot": onMachine((*lab.Machine).Reboot), "remove": onMachine((*lab.Machine).Remove),
	"pause":     onMachine(func(m *lab.Machine, _ context.Context) error { return m.Pause() }),
	"resume":    onMachine(func(m *lab.Machine, _ context.Context) error { return m.Resume() }),
	"partition": partition, "heal": partition, "list": list, "clean": clean, "start-time": startTime,
}

func main() {
	name := flag.String("name", "kairos", "name of the lab")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := errUsage
	if v, ok := verbs[flag.Arg(0)]; ok {
		err = v(ctx, *name, flag.Args()[1:])
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case errors.As(err, &exit) && flag.Arg(0) == "exec":
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, _ string, _ []string) error {
	root, err := run.RepoRoot()
	if err != nil {
		return err
	}
	b, err := cluster.Build(ctx, root, os.Stderr)
	if err != nil {
		return err
	}
	fmt.Printf("OS image  %s\nk3s       %s@%s\n", b.RootFS, b.K3s.Layout, b.K3s.Digest)
	return nil
}

func status(ctx context.Context, name string, _ []string) error {
	l, err := lab.Open(name, os.Stderr)
	if err != nil {
		return err
	}
	for _, m := range l.Machines() {
		fmt.Printf("%s  %-15s %s\n", m.Name(), m.Addr(), cluster.Look(ctx, m).Text)
	}
	return nil
}

func execute(ctx context.Context, name string, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	l, err := lab.Open(name, os.Stderr)
	if err != nil {
		return err
	}
	m, err := l.Machine(args[0])
	if err != nil {
		return err
	}
	cmd, err := m.Command(ctx, args[1:]...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr.Setpgid = false // stays in the terminal's foreground
	cmd.Cancel = nil
	return cmd.Run()
}

// onMachine makes a verb of something that is done to one machine.
func onMachine(do func(*lab.Machine, context.Context) error) verb {
	return func(ctx context.Context, name string, args []string) error {
		if len(args) != 1 {
			return errUsage
		}
		l, err := lab.Open(name, os.Stderr)
		if err != nil {
			return err
		}
		m, err := l.Machine(args[0])
		if err != nil {
			return err
		}
		return do(m, ctx)
	}
}

func partition(ctx context.Context, name string, args []string) error {
	l, err := lab.Open(name, os.Stderr)
	if err != nil {
		return err
	}
	var groups [][]string
	for _, g := range args {
		groups = append(groups, strings.Split(g, ","))
	}
	return l.Partition(ctx, groups...)
}

func list(context.Context, string, []string) error {
	all, err := lab.List()
	for _, l := range all {
		fmt.Printf("%-22s %-16s %s\n", l.Name, l.Net, strings.Join(l.Machines, " "))
	}
	return err
}

func clean(ctx context.Context, _ string, _ []string) error {
	return lab.RemoveOrphans(ctx, os.Stdout)
}
