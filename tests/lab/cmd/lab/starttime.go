package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// startTime measures how long three machines take from their start until
// Kubernetes calls all of them Ready: with nothing but a shared config.yaml, and
// with k3s set up by hand. One after the other, on the same host.
func startTime(ctx context.Context, _ string, _ []string) error {
	const machines = 3
	root, err := run.RepoRoot()
	if err != nil {
		return err
	}
	built, err := cluster.Build(ctx, root, os.Stderr)
	if err != nil {
		return err
	}
	ours, err := stopwatch(ctx, func(ctx context.Context, l *lab.Lab) error { return oneConfig(ctx, l, built, machines) })
	if err != nil {
		return err
	}
	fmt.Printf("kairos, one config.yaml: %d machines Ready %.0f s after their start\n", machines, ours.Seconds())
	hand, err := stopwatch(ctx, func(ctx context.Context, l *lab.Lab) error { return cluster.ByHand(ctx, l, built, machines) })
	if err != nil {
		return err
	}
	fmt.Printf("k3s set up by hand:      %d machines Ready %.0f s after their start\n", machines, hand.Seconds())
	fmt.Printf("RESULT start time %.0f s, by hand %.0f s, difference %+.0f s, ratio %.2f\n",
		ours.Seconds(), hand.Seconds(), (ours - hand).Seconds(), ours.Seconds()/hand.Seconds())
	return nil
}

func stopwatch(ctx context.Context, f func(context.Context, *lab.Lab) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l, err := lab.Create(ctx, lab.Options{Log: io.Discard})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = f(ctx, l)
	took := time.Since(began)
	if e := l.Down(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	return took, err
}

func oneConfig(ctx context.Context, l *lab.Lab, built cluster.Built, machines int) error {
	c, err := cluster.New(ctx, l, built, machines)
	if err != nil {
		return err
	}
	for i := range machines {
		if _, err := c.Add(ctx, fmt.Sprintf("node%d", i+1)); err != nil {
			return err
		}
	}
	if _, err := c.Await(ctx, io.Discard); err != nil {
		return err
	}
	server, err := c.Server(ctx)
	if err != nil {
		return err
	}
	return cluster.AwaitNodes(ctx, server, "", machines)
}
