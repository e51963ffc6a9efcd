package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// patience is how long the machines may take until all are ready.
const patience = 10 * time.Minute

// onPath is where `kairos` is put for the time of the lab.
const onPath = "/usr/local/bin/kairos"

func up(ctx context.Context, name string, args []string) error {
	count := 3
	if len(args) == 1 {
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 1 {
			return errUsage
		}
		count = n
	}
	root, err := run.RepoRoot()
	if err != nil {
		return err
	}
	if _, err := lab.Open(name, os.Stderr); err == nil {
		return fmt.Errorf("the lab %s runs already: `make down` removes it, `make add` adds a machine", name)
	} else if !errors.Is(err, lab.ErrNoLab) {
		return err
	}
	built, err := cluster.Build(ctx, root, os.Stdout)
	if err != nil {
		return err
	}
	l, err := lab.Create(ctx, lab.Options{Name: name, Host: true, Keep: true, Log: os.Stdout})
	if err != nil {
		return err
	}
	c, err := cluster.New(ctx, l, built, count)
	if err != nil {
		return err
	}
	if err := putOnPath(l, built.Kairos()); err != nil {
		return err
	}
	fmt.Printf("starting %d machines\n", count)
	for i := range count {
		if _, err := c.Add(ctx, fmt.Sprintf("node%d", i+1)); err != nil {
			return err
		}
	}
	return await(ctx, c)
}

func putOnPath(l *lab.Lab, program string) error {
	ok, err := l.LinkOnHost(onPath, program)
	if err != nil {
		return err
	}
	if ok {
		fmt.Printf("%s -> %s (until `make down`)\n", onPath, program)
	} else {
		fmt.Printf("%s is something else and stays; use %s\n", onPath, program)
	}
	return nil
}

func add(ctx context.Context, name string, _ []string) error {
	root, err := run.RepoRoot()
	if err != nil {
		return err
	}
	l, err := lab.Open(name, os.Stdout)
	if err != nil {
		return fmt.Errorf("%w: `make up` first", err)
	}
	built, err := cluster.Build(ctx, root, os.Stdout)
	if err != nil {
		return err
	}
	c, err := cluster.Open(l, built)
	if err != nil {
		return err
	}
	machine := ""
	for i := len(l.Machines()) + 1; machine == ""; i++ {
		if _, err := l.Machine(fmt.Sprintf("node%d", i)); err != nil {
			machine = fmt.Sprintf("node%d", i)
		}
	}
	fmt.Printf("starting %s\n", machine)
	if _, err := c.Add(ctx, machine); err != nil {
		return err
	}
	return await(ctx, c)
}

// await shows how the cluster comes up and then how to go on.
func await(ctx context.Context, c *cluster.Cluster) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	views, err := c.Await(wait, os.Stdout)
	if err != nil {
		return fmt.Errorf("%w\nlook at `go run ./tests/lab/cmd/lab exec node1 journalctl -u 'kairos-*'`; `make down` removes everything", err)
	}
	server, err := c.Server(ctx)
	if err != nil {
		return err
	}
	fmt.Println("waiting until Kubernetes calls every node Ready")
	if err := cluster.AwaitNodes(wait, server, "", len(views)); err != nil {
		return err
	}
	nodes, err := cluster.Kubectl(ctx, server, "get", "nodes", "-o", "wide")
	if err != nil {
		return err
	}
	token, err := c.Token()
	if err != nil {
		return err
	}
	fmt.Printf("\n%s\n", nodes)
	for _, v := range views {
		fmt.Printf("%-24s %s\n", v.Name, v.Address)
	}
	fmt.Printf(`
The machines share %s. Join their network from here:

  sudo kairos bridge --network-token %s

and in a second window:

  kairos status
  kairos get-kubeconfig > kubeconfig
  kubectl --kubeconfig kubeconfig get nodes
  ping %s

`+"`make add` starts one more machine, `make down` removes everything.\n", c.ConfigFile(), token, views[0].Name)
	return nil
}

func down(ctx context.Context, name string, _ []string) error {
	l, err := lab.Open(name, os.Stdout)
	if errors.Is(err, lab.ErrNoLab) {
		fmt.Printf("no lab %s: nothing to remove\n", name)
		return nil
	}
	if err != nil {
		return err
	}
	if err := l.Down(ctx); err != nil {
		return err
	}
	fmt.Printf("removed lab %s and everything it made\n", name)
	return nil
}
