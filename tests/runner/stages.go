package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// rooted are the packages whose tests need root and a kernel to play with.
var rooted = []string{"./tests/lab/...", "./tests/netns/...", "./image/disk"}

// booted is the package whose tests boot the OS image as containers.
const booted = "./tests/nspawn"

// virtual are the packages whose tests boot it from disks, in virtual machines, and
// story those of their tests that are part of every run: one machine that lives by
// README, and what needs no machine. `make machines` runs them all.
const (
	virtual = "./tests/vm/..."
	story   = "^(TestMachineLivesByREADME|TestMakeOnce|TestConsole.*|TestLitPixels)$"
)

func lint(ctx context.Context, s *session) result {
	var total result
	for _, c := range []struct {
		name  string
		args  []string
		quiet bool // any output is a fault
	}{
		{"gofmt", []string{"gofmt", "-l", "agent", "cmd", "image", "overlay", "systemd", "tests"}, true},
		{"go vet", []string{"go", "vet", "./..."}, false},
		{"staticcheck", []string{"go", "tool", "staticcheck", "./..."}, false},
		{"go mod verify", []string{"go", "mod", "verify"}, false},
	} {
		began := time.Now()
		out, err := run.Do(ctx, run.Cmd{Args: c.args, Log: s.log})
		if err == nil && c.quiet && out != "" {
			err = fmt.Errorf("%s", out)
		}
		if err != nil {
			s.say("FAIL %s\n%v\n%s", c.name, err, out)
			total.failed++
			continue
		}
		s.say("ok   %s (%s)\n", c.name, time.Since(began).Round(time.Second))
		total.passed++
	}
	return total
}

// unit runs everything that needs neither root nor other machines.
func unit(ctx context.Context, s *session) result {
	out, err := run.Out(ctx, "go", "list", "./...")
	if err != nil {
		s.say("FAIL %v\n", err)
		return result{failed: 1}
	}
	args := []string{"-race", "-timeout=30m"}
	for _, p := range strings.Fields(out) {
		if !ofAnotherStage(p) {
			args = append(args, p)
		}
	}
	return goTest(ctx, s, args...)
}

func ofAnotherStage(pkg string) bool {
	for _, dir := range []string{"/tests/lab", "/tests/netns", "/tests/nspawn", "/tests/vm"} {
		if strings.Contains(pkg, dir) {
			return true
		}
	}
	return false
}

func netns(ctx context.Context, s *session) result {
	return goTest(ctx, s, append([]string{"-count=1", "-p=1", "-timeout=15m"}, rooted...)...)
}

func nspawn(ctx context.Context, s *session) result {
	s.say("waiting for the OS image and k3s, built since the start\n")
	if err := <-s.images; err != nil {
		s.say("FAIL build of the images: %v\n", err)
		return result{failed: 1}
	}
	return goTest(ctx, s, "-count=1", "-timeout=30m", booted)
}

// machine boots one virtual machine.
func machine(ctx context.Context, s *session) result {
	return goTest(ctx, s, "-count=1", "-p=1", "-timeout=60m", "-run="+story, virtual)
}
