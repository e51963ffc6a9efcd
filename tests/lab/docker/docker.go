// Package docker runs a real Docker engine on a machine of a lab. The engine is
// the machine's own: its data, its sockets and its containers' network are, and all
// of it is gone with the machine. `docker` finds it there as it does anywhere.
package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	capabilities "github.com/containerd/containerd/v2/pkg/cap"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kairos-io/kairos/tests/lab"
)

// Engine is a running engine.
type Engine struct {
	machine *lab.Machine
	cmd     *exec.Cmd
	ended   chan struct{}
}

// toStart is how long an engine may take until it answers, and to end.
const toStart = time.Minute

// engineArgs: no bridge and no rules, since containers share the machine's network.
var engineArgs = []string{"dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--log-level=warn"}

// Start starts an engine on a machine of namespaces. What it has to say goes to log.
func Start(ctx context.Context, m *lab.Machine, log io.Writer) (*Engine, error) {
	if err := ownGroups(ctx, m); err != nil {
		return nil, fmt.Errorf("start docker: %w", err)
	}
	args := append(slices.Clone(engineArgs), "--data-root", filepath.Join(m.Dir(), "docker"))
	runtime, err := fewerCapabilities(m)
	if err != nil {
		return nil, fmt.Errorf("start docker: %w", err)
	}
	if runtime != "" {
		args = append(args, "--add-runtime=fewer="+runtime, "--default-runtime=fewer")
	}
	cmd, err := m.Command(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("start docker: %w", err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start docker: %w", err)
	}
	e := &Engine{machine: m, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(e.ended)
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	ctx, cancel := context.WithTimeout(ctx, toStart)
	defer cancel()
	for {
		_, err := e.Docker(ctx, "version")
		if err == nil {
			return e, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("start docker: %w", err), e.Stop())
		case <-e.ended:
			return nil, fmt.Errorf("start docker: it ended: %s", cmd.ProcessState)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// ownGroups mounts the machine's control groups afresh: those of the host, which a
// machine of namespaces sees, lead out of it.
func ownGroups(ctx context.Context, m *lab.Machine) error {
	trees, err := lab.Hierarchies()
	if err != nil {
		return err
	}
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, dir := range slices.Sorted(maps.Keys(trees)) {
		target := filepath.Join("/sys/fs/cgroup", dir)
		if options := trees[dir]; options != "" {
			fmt.Fprintf(&script, "umount %[2]s\nmount -t cgroup -o %[1]s cgroup %[2]s\n", options, target)
		} else {
			fmt.Fprintf(&script, "umount %[1]s\nmount -t cgroup2 cgroup2 %[1]s\n", target)
		}
	}
	_, err = m.Exec(ctx, "sh", "-c", script.String())
	return err
}

// fewerCapabilities makes a runtime for hosts that lack some capability, as the
// inside of a container does: a privileged container is to have every one that
// there is, and runc refuses what cannot be had. It is empty where none is missing.
func fewerCapabilities(m *lab.Machine) (string, error) {
	sets, err := capabilities.Current()
	if err != nil {
		return "", fmt.Errorf("read this host's capabilities: %w", err)
	}
	var edits strings.Builder
	for _, c := range capabilities.Known() {
		if !slices.Contains(sets, c) {
			fmt.Fprintf(&edits, `s/"%[1]s",//g;s/,"%[1]s"//g;`, c)
		}
	}
	if edits.Len() == 0 {
		return "", nil
	}
	path := filepath.Join(m.Dir(), "runc-fewer")
	script := `#!/bin/sh
previous=
for word; do
	if [ "$previous" = --bundle ]; then sed -i '` + edits.String() + `' "$word/config.json"; fi
	previous=$word
done
exec runc "$@"
`
	return path, os.WriteFile(path, []byte(script), 0o755)
}

// Docker runs a command of the client on the engine's machine and returns what it
// wrote to standard output.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	return e.machine.Exec(ctx, append([]string{"docker"}, args...)...)
}

// Load loads the image for this machine's architecture out of an OCI layout under
// a name.
func (e *Engine) Load(ctx context.Context, dir, ref string) error {
	archive := filepath.Join(e.machine.Dir(), "image.tar")
	if err := WriteArchive(archive, dir, ref); err != nil {
		return err
	}
	_, err := e.Docker(ctx, "load", "--quiet", "--input", archive)
	return errors.Join(err, os.Remove(archive))
}

// WriteArchive writes the image for this machine's architecture out of the OCI layout
// dir into a file that every docker can load, under a name.
func WriteArchive(file, dir, ref string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("load an image: %w", err)
	}
	img, err := Image(dir, runtime.GOARCH)
	if err != nil {
		return fmt.Errorf("load an image: %w", err)
	}
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		return fmt.Errorf("load an image: %w", err)
	}
	return nil
}

// Image finds the image for an architecture in a layout that holds one index.
func Image(dir, arch string) (v1.Image, error) {
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	indexes, err := partial.FindIndexes(top, func(v1.Descriptor) bool { return true })
	if err != nil {
		return nil, err
	}
	for _, index := range indexes {
		images, err := partial.FindImages(index, match.Platforms(v1.Platform{OS: "linux", Architecture: arch}))
		if err != nil {
			return nil, err
		}
		if len(images) == 1 {
			return images[0], nil
		}
	}
	return nil, fmt.Errorf("%s holds no image for %s", dir, arch)
}

// Stop ends the engine and its containers.
func (e *Engine) Stop() error {
	if err := lab.Signal(e.cmd, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop docker: %w", err)
	}
	select {
	case <-e.ended:
		return nil
	case <-time.After(toStart):
		return errors.New("stop docker: it does not end")
	}
}
