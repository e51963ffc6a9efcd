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

	"github.com/kairos-io/kairos/agent/api"
)

func descriptorOf(b api.Blob) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: b.MediaType, Digest: digest.Digest(b.Digest), Size: b.Size}
}

// gcLabels tell containerd's garbage collection what a manifest or an index needs.
func gcLabels(b api.Blob) map[string]string {
	l := map[string]string{}
	if b.Config != "" {
		l["containerd.io/gc.ref.content.config"] = b.Config
	}
	for i, d := range b.Layers {
		l["containerd.io/gc.ref.content.l."+strconv.Itoa(i)] = d
	}
	for i, d := range b.Manifests {
		l["containerd.io/gc.ref.content.m."+strconv.Itoa(i)] = d
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

// Fill stores the blobs of an image and returns what its name shall stand for: a
// manifest, or an index.
type Fill func(ctx context.Context, s Store) (api.Blob, error)

// ImportImage calls fill with a place to store an image's blobs in, and then
// unpacks and names what fill returns. What is stored is protected from garbage
// collection meanwhile, and kept for a while when fill fails, so that the next
// try goes on from there.
func (r *Runtime) ImportImage(ctx context.Context, name string, fill Fill) error {
	return r.leased(ctx, func(ctx context.Context) error {
		root, err := fill(ctx, contents{r.client.ContentStore()})
		if err != nil {
			return err
		}
		snapshotter, err := r.snapshotter(ctx)
		if err != nil {
			return err
		}
		// Unpacked first and named then: a layer that the image under this name has too
		// is not unpacked again, and is protected by that name alone until the new
		// image's content refers to it.
		img := images.Image{Name: name, Target: descriptorOf(root)}
		if err := containerd.NewImage(r.client, img).Unpack(ctx, snapshotter); err != nil {
			return explain("unpack the k3s image", err)
		}
		_, err = r.nameImage(ctx, img)
		return err
	})
}

// pullLease protects what a transfer has brought so far.
const pullLease = "kairos-pull"

// leased calls f under the lease of transfers, which ends when f succeeds. One
// call at a time in each namespace.
func (r *Runtime) leased(ctx context.Context, f func(context.Context) error) error {
	ctx, _, err := r.client.WithLease(ctx, leases.WithID(pullLease), leases.WithExpiration(leaseTime))
	if errdefs.IsAlreadyExists(err) { // an earlier transfer was interrupted: its lease still protects its blobs
		ctx, err = leases.WithLease(ctx, pullLease), nil
	}
	if err != nil {
		return explain("protect an image", err)
	}
	if err := f(ctx); err != nil {
		return err
	}
	err = r.client.LeasesService().Delete(ctx, leases.Lease{ID: pullLease})
	if err != nil && !errdefs.IsNotFound(err) {
		return explain("release an image", err)
	}
	return nil
}

// nameImage makes the image, or moves its name and our labels to what it stands for now.
func (r *Runtime) nameImage(ctx context.Context, img images.Image) (images.Image, error) {
	service := r.client.ImageService()
	got, err := service.Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		fields := []string{"target"}
		for key := range img.Labels {
			fields = append(fields, "labels."+key)
		}
		got, err = service.Update(ctx, img, fields...)
	}
	if err != nil {
		return images.Image{}, explain("name the image "+img.Name, err)
	}
	return got, nil
}

// Store takes the verified blobs of an image.
type Store interface {
	// Has reports whether the blob is complete.
	Has(ctx context.Context, b api.Blob) (bool, error)
	// Write stores the blob; containerd checks size and digest once more. What
	// arrived before an error is kept for the next Write.
	Write(ctx context.Context, b api.Blob, r io.Reader) error
	// Discard drops what an unfinished Write left.
	Discard(ctx context.Context, b api.Blob) error
}

// contents is containerd's store.
type contents struct{ store content.Store }

// Has implements Store.
func (c contents) Has(ctx context.Context, b api.Blob) (bool, error) {
	_, err := c.store.Info(ctx, digest.Digest(b.Digest))
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, explain("look for a blob", err)
	}
	return true, nil
}

// Write implements Store.
func (c contents) Write(ctx context.Context, b api.Blob, r io.Reader) error {
	var opts []content.Opt
	if l := gcLabels(b); len(l) > 0 {
		opts = append(opts, content.WithLabels(l))
	}
	err := content.WriteBlob(ctx, c.store, ingestOf(b), r, descriptorOf(b), opts...)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("store %s: %w", b.Digest, err)
	if errdefs.IsFailedPrecondition(err) || errdefs.IsOutOfRange(err) {
		// What an earlier try left is damaged (power was cut while it was written):
		// going on from there would fail for ever.
		err = errors.Join(err, c.Discard(ctx, b))
	}
	return err
}

// Discard implements Store.
func (c contents) Discard(ctx context.Context, b api.Blob) error {
	if err := c.store.Abort(ctx, ingestOf(b)); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("drop the unfinished blob: %w", err)
	}
	return nil
}

// ingestOf is what containerd calls the unfinished blob.
func ingestOf(b api.Blob) string { return "kairos-" + b.Digest }

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
