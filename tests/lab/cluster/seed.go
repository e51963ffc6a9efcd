package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/tests/k3simage"
)

// SeedFS is RootFS of an OS image that carries k3s, the images of pods and those of k3s'
// add-ons.
func (b Built) SeedFS(ctx context.Context, root string, log io.Writer) (string, error) {
	fmt.Fprintln(log, "building the OS image that carries images")
	flags, err := SeedFlags(root, b.K3s)
	if err != nil {
		return "", err
	}
	addons, err := k3simage.Addons(ctx, root, log)
	if err != nil {
		return "", err
	}
	for _, a := range addons {
		flags = append(flags, "--with-images", a.Name+"=oci:"+a.Layout)
	}
	return rootFS(ctx, root, "seed", flags...)
}

// NextK3s is the name under which machines find the next minor version of Kubernetes. It is
// the very same k3s: what matters is what a name says.
func NextK3s() string {
	repository, tag, _ := strings.Cut(k3s.DefaultImage, ":v1.")
	minor, err := strconv.Atoi(strings.SplitN(tag, ".", 2)[0])
	if err != nil {
		panic("cluster: the default image has a tag like v1.35.8-k3s1: " + k3s.DefaultImage)
	}
	return fmt.Sprintf("%s:v1.%d.0-k3s1", repository, minor+1)
}

// SeedFlags are the flags of `image os` for an image that carries k3s, under the
// name that machines look for when nothing else is configured, and the images of
// pods.
func SeedFlags(root string, images k3simage.Images) ([]string, error) {
	var flags []string
	for _, name := range []string{k3s.DefaultImage, NextK3s()} {
		flags = append(flags, "--with-images", name+"=oci:"+images.Layout)
	}
	for i, name := range []string{k3simage.PauseName, k3simage.EchoName} { // in the order of the archives
		dir := filepath.Join(root, "build", "pod-layouts", fmt.Sprint(i))
		if err := toLayout(images.Archives[i], dir); err != nil {
			return nil, fmt.Errorf("build the OS image: %w", err)
		}
		flags = append(flags, "--with-images", name+"=oci:"+dir)
	}
	return flags, nil
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
