package k3s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob describes a piece of an image to be stored.
type Blob struct {
	MediaType string
	Digest    string // "sha256:..."
	Size      int64
	Config    string   // manifest only: digest of the configuration
	Layers    []string // manifest only: digests of the layers
}

func (b Blob) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: b.MediaType, Digest: digest.Digest(b.Digest), Size: b.Size}
}

// gcLabels tell containerd's garbage collection what the manifest needs.
func (b Blob) gcLabels() map[string]string {
	if b.Config == "" {
		return nil
	}
	l := map[string]string{"containerd.io/gc.ref.content.config": b.Config}
	for i, d := range b.Layers {
		l["containerd.io/gc.ref.content.l."+strconv.Itoa(i)] = d
	}
	return l
}

// ImageDigest returns the digest ("sha256:...") of the image of this name, and
// "" while it is not there as a whole and unpacked.
func (r *Runtime) ImageDigest(ctx context.Context, name string) (string, error) {
	img, err := r.client.GetImage(ctx, name)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", explain("look for the k3s image", err)
	}
	snapshotter, err := r.snapshotter(ctx)
	if err != nil {
		return "", err
	}
	ok, err := img.IsUnpacked(ctx, snapshotter)
	if errdefs.IsNotFound(err) || err == nil && !ok {
		return "", nil // part of its content is gone, or it was not unpacked to the end
	}
	if err != nil {
		return "", explain("check the k3s image", err)
	}
	return img.Target().Digest.String(), nil
}

// ImportImage calls fill with a place to store an image's blobs in, and then
// names and unpacks the manifest that fill returns. What is stored is protected
// from garbage collection meanwhile, and kept for a while when fill fails, so
// that the next try goes on from there.
func (r *Runtime) ImportImage(ctx context.Context, name string, fill func(ctx context.Context, c *Content) (Blob, error)) error {
	ctx, done, err := r.client.WithLease(ctx, leases.WithID("kairos-pull"), leases.WithExpiration(leaseTime))
	if errdefs.IsAlreadyExists(err) { // an earlier pull was interrupted: its lease still protects its blobs
		ctx, done, err = leases.WithLease(ctx, "kairos-pull"), r.dropLease, nil
	}
	if err != nil {
		return explain("protect the k3s image", err)
	}
	manifest, err := fill(ctx, &Content{store: r.client.ContentStore()})
	if err != nil {
		return err
	}
	img, err := r.nameImage(ctx, name, manifest)
	if err != nil {
		return err
	}
	snapshotter, err := r.snapshotter(ctx)
	if err != nil {
		return err
	}
	if err := containerd.NewImage(r.client, img).Unpack(ctx, snapshotter); err != nil {
		return explain("unpack the k3s image", err)
	}
	if err := done(ctx); err != nil && !errdefs.IsNotFound(err) {
		return explain("release the k3s image", err)
	}
	return nil
}

func (r *Runtime) dropLease(ctx context.Context) error {
	return r.client.LeasesService().Delete(ctx, leases.Lease{ID: "kairos-pull"})
}

func (r *Runtime) nameImage(ctx context.Context, name string, manifest Blob) (images.Image, error) {
	img := images.Image{Name: name, Target: manifest.descriptor()}
	service := r.client.ImageService()
	got, err := service.Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		got, err = service.Update(ctx, img, "target")
	}
	if err != nil {
		return images.Image{}, explain("name the k3s image", err)
	}
	return got, nil
}

// Content stores verified blobs in containerd.
type Content struct{ store content.Store }

// Has reports whether the blob is complete.
func (c *Content) Has(ctx context.Context, b Blob) (bool, error) {
	_, err := c.store.Info(ctx, digest.Digest(b.Digest))
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, explain("look for a blob", err)
	}
	return true, nil
}

// Write stores the blob; containerd checks size and digest once more.
func (c *Content) Write(ctx context.Context, b Blob, r io.Reader) error {
	var opts []content.Opt
	if l := b.gcLabels(); l != nil {
		opts = append(opts, content.WithLabels(l))
	}
	ref := "kairos-" + b.Digest
	err := content.WriteBlob(ctx, c.store, ref, r, b.descriptor(), opts...)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("store %s: %w", b.Digest, err)
	if errdefs.IsFailedPrecondition(err) || errdefs.IsOutOfRange(err) {
		// What an earlier try left is damaged (power was cut while it was written):
		// going on from there would fail for ever.
		if aerr := c.store.Abort(ctx, ref); aerr != nil && !errdefs.IsNotFound(aerr) {
			err = errors.Join(err, fmt.Errorf("drop the unfinished blob: %w", aerr))
		}
	}
	return err
}

// imageConfig returns the image and what it says about running it.
func (r *Runtime) imageConfig(ctx context.Context, name string) (containerd.Image, imageConfig, error) {
	img, err := r.client.GetImage(ctx, name)
	if err != nil {
		return nil, imageConfig{}, explain("look for the k3s image", err)
	}
	spec, err := img.Spec(ctx)
	if err != nil {
		return nil, imageConfig{}, explain("read the k3s image's configuration", err)
	}
	return img, imageConfig{Entrypoint: spec.Config.Entrypoint, Env: spec.Config.Env}, nil
}

// snapshotter picks overlayfs, or the plain copying one where that does not work.
func (r *Runtime) snapshotter(ctx context.Context) (string, error) {
	plugins, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return "", explain("list snapshotters", err)
	}
	usable := map[string]bool{}
	for _, p := range plugins.Plugins {
		usable[p.ID] = p.InitErr == nil
	}
	for _, name := range []string{"overlayfs", "native"} {
		if usable[name] {
			return name, nil
		}
	}
	return "", fmt.Errorf("list snapshotters: neither overlayfs nor native works in this containerd")
}
