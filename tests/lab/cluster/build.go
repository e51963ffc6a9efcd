package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/k3simage"
	"github.com/kairos-io/kairos/tests/lab"
)

// Built is everything that machines are started from.
type Built struct {
	RootFS string // the OS image, unpacked
	K3s    k3simage.Images
}

// Build builds the programs, the OS image and k3s, as far as they are not built
// yet. What takes long says so on log.
func Build(ctx context.Context, root string, log io.Writer) (Built, error) {
	var b Built
	var err error
	if b.RootFS, err = RootFS(ctx, root, log); err != nil {
		return b, err
	}
	b.K3s, err = k3simage.Build(ctx, root, log)
	return b, err
}

// Kairos is the program of that name that is in the image; it runs on any Linux.
func (b Built) Kairos() string { return filepath.Join(b.RootFS, "usr", "bin", "kairos") }

// Programs builds kairos and kairos-agent into build/bin, static like the ones
// in the image.
func Programs(ctx context.Context, root string) error {
	_, err := run.Do(ctx, run.Cmd{
		Args: []string{"go", "build", "-trimpath", "-o", filepath.Join(root, "build", "bin") + "/", "./cmd/kairos", "./cmd/kairos-agent"},
		Dir:  root, Env: []string{"CGO_ENABLED=0"},
	})
	return err
}

// RootFS builds the OS image and unpacks it. The result is shared by machines
// and must not be written to. Older ones that no lab uses are removed.
func RootFS(ctx context.Context, root string, log io.Writer) (string, error) {
	fmt.Fprintln(log, "building the OS image")
	return rootFS(ctx, root, "os")
}

// rootFS builds an OS image with more flags of `image os` and unpacks it.
func rootFS(ctx context.Context, root, name string, flags ...string) (string, error) {
	layout := filepath.Join(root, "build", name)
	out, err := run.Do(ctx, run.Cmd{Args: append([]string{"go", "run", "./image", "os", "--out", layout}, flags...), Dir: root})
	if err != nil {
		return "", err
	}
	_, digest, ok := strings.Cut(strings.TrimSpace(out), "sha256:")
	if !ok || len(digest) != 64 {
		return "", fmt.Errorf("build the OS image: unexpected answer %q", out)
	}
	cache := filepath.Join(root, "build", "cache")
	dir := filepath.Join(cache, "rootfs-"+name+"-"+digest[:16])
	if err := prune(cache, name, dir); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("look for the unpacked OS image: %w", err)
	}
	_, err = run.Do(ctx, run.Cmd{Args: []string{"go", "run", "./image", "unpack", "--layout", layout, "--out", dir}, Dir: root})
	return dir, err
}

func prune(cache, name, keep string) error {
	old, err := filepath.Glob(filepath.Join(cache, "rootfs-"+name+"-*"))
	if err != nil {
		return fmt.Errorf("remove old images: %w", err)
	}
	used, err := lab.ImagesInUse()
	if err != nil {
		return err
	}
	for _, dir := range old {
		if dir == keep || used[dir] {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove old images: %w", err)
		}
	}
	return nil
}
