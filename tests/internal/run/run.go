// Package run starts other programs for the test tools and says what went
// wrong in one error: the command, its exit and the tail of what it wrote.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tail is how much of a failed command's output goes into the error.
const tail = 2000

// Cmd is one command to run. Only Args is required.
type Cmd struct {
	Args  []string
	Dir   string
	Env   []string // added to this process's own
	Stdin io.Reader
	Log   io.Writer // gets a copy of all output, may be nil
}

// Do runs the command to its end. Its stdout comes back; stderr (and stdout)
// are in the error if it fails.
func Do(ctx context.Context, c Cmd) (string, error) {
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	cmd.Env = append(os.Environ(), c.Env...)
	var out, all bytes.Buffer
	both := io.Writer(&all)
	if c.Log != nil {
		both = io.MultiWriter(&all, c.Log)
	}
	cmd.Stdout = io.MultiWriter(&out, both)
	cmd.Stderr = both
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run %s: %w: %s", strings.Join(c.Args, " "), err, lastPart(all.String()))
	}
	return out.String(), nil
}

// Out is Do for a plain argument list.
func Out(ctx context.Context, args ...string) (string, error) {
	return Do(ctx, Cmd{Args: args})
}

func lastPart(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > tail {
		s = "..." + s[len(s)-tail:]
	}
	return s
}

// RepoRoot is the top of this repository, found upwards from the working
// directory, so that tests and tools work from any folder of it.
func RepoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/kairos-io/kairos\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find the repository: %w", err)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the repository: not inside the kairos repository")
		}
		dir = up
	}
}
