package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Source says which state of the source tree an image is made from.
type Source struct {
	Dir      string    // the module's directory
	Version  string    // what `kairos version` prints
	Revision string    // commit, empty outside of a checkout
	Time     time.Time // stands in every "created"; SOURCE_DATE_EPOCH or the commit's
}

// FindSource completes what is known about the checkout in s.Dir: an empty
// version or revision becomes what git says; a tree without git is "dev" and as
// old as the base layer.
func FindSource(ctx context.Context, s Source, getenv func(string) string) (Source, error) {
	dir := s.Dir
	s.Time = baseEpoch
	if s.Revision == "" {
		s.Revision = git(ctx, dir, "rev-parse", "HEAD")
	}
	if s.Version == "" {
		s.Version = git(ctx, dir, "describe", "--tags", "--always", "--dirty")
	}
	if s.Version == "" {
		s.Version = "dev"
	}
	seconds := git(ctx, dir, "log", "-1", "--format=%ct")
	if e := getenv("SOURCE_DATE_EPOCH"); e != "" {
		seconds = e
	}
	if seconds != "" {
		n, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil || n < 0 {
			return Source{}, fmt.Errorf("read SOURCE_DATE_EPOCH: %q is not a number of seconds", seconds)
		}
		s.Time = time.Unix(n, 0).UTC()
	}
	return s, nil
}

// git returns the one line that git prints, or nothing: a release tarball has no
// git, and that is no error.
func git(ctx context.Context, dir string, args ...string) string {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// Program is a command that an image has and that is built from Go source.
type Program struct {
	Package string   // relative to the module, for example ./cmd/kairos, or an import path
	Path    string   // in the image, without the leading slash
	Module  string   // directory of the module that it is built in, relative to ours; empty: ours
	Tags    []string // build tags
	Version string   // variable that says its version: the source's in our module, else that of the module with the variable
}

// Programs of the project.
var (
	CLI   = Program{Package: "./cmd/kairos", Path: "usr/bin/kairos", Version: ownVersion}
	Agent = Program{Package: "./cmd/kairos-agent", Path: "usr/bin/kairos-agent", Version: ownVersion}
)

const (
	ownVersion       = "github.com/kairos-io/kairos/cmd/internal/cli.Version"
	containerdModule = "github.com/containerd/containerd/v2"
)

// Containerd is the container runtime: newer than Debian's, which Kubernetes will leave
// behind before Debian does, and one that is looked after as long (LTS, to April 2028).
// The version is in the module's go.mod.
var Containerd = []Program{containerd("containerd"), containerd("containerd-shim-runc-v2"), containerd("ctr")}

func containerd(name string) Program {
	return Program{
		Package: containerdModule + "/cmd/" + name, Path: "usr/bin/" + name, Module: "image/builder/containerd",
		Tags:    []string{"no_btrfs", "no_devmapper", "no_zfs"}, // snapshotters that need more than Debian's base
		Version: containerdModule + "/version.Version",
	}
}

// Compiler turns a program of source into the bytes of a static executable.
// Tests have one that is quicker than Go's.
type Compiler func(ctx context.Context, s Source, p Program, arch string) ([]byte, error)

// GoBuild is the Compiler of real images. The result depends on the source and
// the Go version alone: no paths, no build ID of a checkout, no C.
func GoBuild(ctx context.Context, s Source, p Program, arch string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "kairos-build-")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", p.Package, err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	out := filepath.Join(tmp, "program")
	version := s.Version
	if p.Module != "" {
		if version, err = moduleVersion(ctx, filepath.Join(s.Dir, p.Module), p.Version); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", strings.Join(p.Tags, ","),
		"-ldflags", "-s -w -buildid= -X "+p.Version+"="+version,
		"-o", out, p.Package)
	cmd.Dir = filepath.Join(s.Dir, p.Module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if text, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%w: go\nhint: install Go (see go.mod for the version)", ErrMissingTool)
		}
		return nil, fmt.Errorf("build %s for %s: %w\n%s", p.Package, arch, err, text)
	}
	return os.ReadFile(out)
}

// moduleVersion is the version that the module in dir asks for of the one with the package
// of a variable.
func moduleVersion(ctx context.Context, dir, variable string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Version}}", strings.TrimSuffix(variable, path.Ext(variable)))
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the version of %s: %w", variable, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Prebuilt returns a Compiler that takes executables from a directory, by the
// last element of their package's name.
func Prebuilt(dir string) Compiler {
	return func(_ context.Context, _ Source, p Program, _ string) ([]byte, error) {
		data, err := os.ReadFile(filepath.Join(dir, filepath.Base(p.Package)))
		if err != nil {
			return nil, fmt.Errorf("take a built program: %w", err)
		}
		return data, nil
	}
}
