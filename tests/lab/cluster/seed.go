package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/tests/k3simage"
)

// SeedFS is RootFS of an OS image that carries k3s, under the name that machines
// look for when nothing else is configured, and the images of pods.
func (b Built) SeedFS(ctx context.Context, root string, log io.Writer) (string, error) {
	fmt.Fprintln(log, "building the OS image that carries images")
	flags := []string{"--with-images", k3s.DefaultImage + "=oci:" + b.K3s.Layout}
	for i, name := range []string{k3simage.PauseName, k3simage.EchoName} { // in the order of the archives
		dir := filepath.Join(root, "build", "pod-layouts", fmt.Sprint(i))
		if err := toLayout(b.K3s.Archives[i], dir); err != nil {
			return "", fmt.Errorf("build the OS image: %w", err)
		}
		flags = append(flags, "--with-images", name+"=oci:"+dir)
	}
	return rootFS(ctx, root, "seed", flags...)
}

// toLayout makes an OCI layout of an archive.
func toLayout(archive, dir string) error {
	img, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Dir(dir), 0o755)); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(img)
}
