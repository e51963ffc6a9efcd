package appliance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/image/disk"
	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/k3simage"
	"github.com/kairos-io/kairos/tests/lab/cluster"
)

// edit is what makes one release of the OS image different from another.
type edit struct {
	Seeded  bool              // carries k3s and the images of pods
	Version string            // empty: the image's own
	Files   map[string]string // path -> content, over the image's
}

// system is the operating system of this checkout: the OS image and what is
// made of it, kept in build/cache until the image changes.
type system struct {
	layout string // the OS image
	prefix string // of the names of everything in the cache that is made of it
	tools  disk.ToolboxOptions
}

// systems are built once for all tests of this process: without images, and with.
var systems = struct {
	sync.Mutex
	plain, seeded *system
}{}

// system builds the OS image unless that is done.
func (s *story) system(seeded bool) *system {
	s.Helper()
	systems.Lock()
	defer systems.Unlock()
	name, built := "vm", &systems.plain
	if seeded {
		name, built = "vmseed", &systems.seeded
	}
	if *built == nil {
		sys, err := buildSystem(s, name, seeded)
		s.must(err)
		*built = sys
	}
	return *built
}

func buildSystem(s *story, name string, seeded bool) (*system, error) {
	root, err := run.RepoRoot()
	if err != nil {
		return nil, err
	}
	b := &system{layout: filepath.Join(root, "build", "os-"+name)}
	args := []string{"go", "run", "./image", "os", "--flavour", *flavour, "--out", b.layout}
	if seeded {
		k3s, err := k3simage.Build(s.ctx, root, s.Output())
		if err != nil {
			return nil, err
		}
		flags, err := cluster.SeedFlags(root, k3s)
		if err != nil {
			return nil, err
		}
		args = append(args, flags...)
	}
	out, err := run.Do(s.ctx, run.Cmd{Args: args, Dir: root})
	if err != nil {
		return nil, err
	}
	_, digest, ok := strings.Cut(strings.TrimSpace(out), "sha256:")
	if !ok {
		return nil, fmt.Errorf("build the OS image: unexpected answer %q", out)
	}
	b.tools.CacheDir = filepath.Join(root, "build", "cache")
	b.prefix = filepath.Join(b.tools.CacheDir, name+"-"+digest[:12]+"-")
	if b.tools.Mirrors, err = builder.FindMirrors(builder.Mirrors{}, os.Getenv, "/etc/apt"); err != nil {
		return nil, err
	}
	return b, b.prune(name)
}

// prune removes what was made of other images of that name.
func (b *system) prune(name string) error {
	old, err := filepath.Glob(filepath.Join(b.tools.CacheDir, name+"-????????????-*"))
	if err != nil {
		return fmt.Errorf("remove old releases: %w", err)
	}
	for _, path := range old {
		if !strings.HasPrefix(path, b.prefix) {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove old releases: %w", err)
			}
		}
	}
	return nil
}

// make returns the cached path of the given kind, made by f from the edit if it
// is not there yet. f writes to the path that it is given. Stories that run at once
// wait for who came first.
func (b *system) make(ctx context.Context, kind string, e edit, f func(out string) error) (string, error) {
	key, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(key)
	name := kind + "-" + hex.EncodeToString(sum[:6])
	path := b.prefix + name
	unlock, err := builder.Lock(ctx, b.tools.CacheDir, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	tmp := path + ".new"
	if err := os.RemoveAll(tmp); err != nil { // of somebody who was interrupted
		return "", err
	}
	if err := f(tmp); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	return path, os.Rename(tmp, path)
}

// release is an OS release with the edit, as an OCI layout.
func (s *story) release(e edit) string {
	s.Helper()
	b := s.system(e.Seeded)
	path, err := b.make(s.ctx, "release", e, func(out string) error {
		extra, err := extraTree(s.rack.Dir(), e)
		if err != nil {
			return err
		}
		_, err = disk.Release(s.ctx, disk.ReleaseOptions{
			Layout: b.layout, Extra: extra, Fast: true, Version: e.Version, Out: out, Toolbox: b.tools,
		})
		return err
	})
	s.must(err)
	return path
}

// extraTree puts the edit's files into one directory.
func extraTree(parent string, e edit) (string, error) {
	dir, err := os.MkdirTemp(parent, "extra-")
	if err != nil {
		return "", err
	}
	for name, text := range e.Files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// flashable is a disk image that a person would write to a disk.
func (s *story) flashable(e edit) string {
	s.Helper()
	if *given != "" {
		return *given
	}
	b := s.system(e.Seeded)
	release := s.release(e)
	path, err := b.make(s.ctx, "disk", e, func(out string) error {
		return disk.Raw(s.ctx, disk.MediumOptions{Release: release, Out: out, Toolbox: b.tools})
	})
	s.must(err)
	return path
}
