package k3s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kairos-io/kairos/agent/api"
)

// podNamespace is containerd's namespace of the kubelet: its images and pods.
const podNamespace = "k8s.io"

// Labels of the images that this package puts there. The second one keeps the
// kubelet from removing an image when disk space is short: it could not be had
// again without a registry.
const (
	labelOrigin = "kairos.io/image"
	labelPinned = "io.cri-containerd.pinned"

	originBaked  = "baked"
	originMember = "member"
)

// maxDocument bounds a manifest or an index, in bytes.
const maxDocument = 4 << 20

// ErrForeign: the name belongs to an image that somebody else put there.
var ErrForeign = errors.New("there is an image of this name that kairos did not bring")

// PodImage is an image that pods start from without a registry, because it came
// with a machine of this network.
type PodImage struct {
	Name     string // registry/repository:tag, or registry/repository@digest
	Baked    bool   // with this very machine, else with another one
	api.Blob        // what the name stands for: a manifest or an index
	// Blobs are all pieces: Blob; its manifest, which Blob.Manifests names, where
	// Blob is an index; the configuration; the layers. Set by PodImages only.
	Blobs []api.Blob
}

// PodImages lists the images that ImportPodImage brought and that are complete.
func (r *Runtime) PodImages(ctx context.Context) ([]PodImage, error) {
	ctx = namespaces.WithNamespace(ctx, podNamespace)
	list, err := r.client.ImageService().List(ctx, `labels."`+labelOrigin+`"`)
	if err != nil {
		return nil, explain("list the images of pods", err)
	}
	var out []PodImage
	for _, img := range list {
		if img.Name == digestName(img.Name, img.Target.Digest.String()) && hasTagged(list, img) {
			continue // the second name of another one in the list
		}
		blobs, err := r.pieces(ctx, img.Target)
		if err != nil {
			return nil, err
		}
		if blobs == nil {
			continue
		}
		out = append(out, PodImage{Name: img.Name, Baked: img.Labels[labelOrigin] == originBaked, Blob: blobs[0], Blobs: blobs})
	}
	return out, nil
}

func hasTagged(list []images.Image, alias images.Image) bool {
	for _, img := range list {
		if img.Name != alias.Name && img.Target.Digest == alias.Target.Digest && digestName(img.Name, img.Target.Digest.String()) == alias.Name {
			return true
		}
	}
	return false
}

// digestName is registry/repository@digest, the name under which the kubelet
// looks for an image whose digest a pod gives.
func digestName(name, digest string) string {
	name, _, _ = strings.Cut(name, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name + "@" + digest
}

// ImportPodImage is ImportImage for pods: what fill returns gets the name of img
// and a second one by its digest. It is unpacked when the first pod needs it. An
// image of that name that somebody else brought is left alone: ErrForeign, before
// fill is called.
func (r *Runtime) ImportPodImage(ctx context.Context, img PodImage, fill Fill) error {
	ctx = namespaces.WithNamespace(ctx, podNamespace)
	there, err := r.client.ImageService().Get(ctx, img.Name)
	switch {
	case err == nil && there.Labels[labelOrigin] == "":
		return fmt.Errorf("import %s: %w", img.Name, ErrForeign)
	case err != nil && !errdefs.IsNotFound(err):
		return explain("look for "+img.Name, err)
	}
	labels := map[string]string{labelOrigin: originMember, labelPinned: "pinned"}
	if img.Baked {
		labels[labelOrigin] = originBaked
	}
	return r.leased(ctx, func(ctx context.Context) error {
		root, err := fill(ctx, contents{r.client.ContentStore()})
		if err != nil {
			return err
		}
		if old := there.Target.Digest.String(); old != "" && old != root.Digest {
			if err := r.release(ctx, digestName(img.Name, old)); err != nil {
				return err
			}
		}
		// The name comes last: it says that all is there.
		for _, name := range []string{digestName(img.Name, root.Digest), img.Name} {
			if _, err := r.nameImage(ctx, images.Image{Name: name, Target: descriptorOf(root), Labels: labels}); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReleasePodImage makes an ordinary image of one that ImportPodImage brought: it is
// not offered any more, and the kubelet may remove it when disk space is short.
func (r *Runtime) ReleasePodImage(ctx context.Context, img PodImage) error {
	ctx = namespaces.WithNamespace(ctx, podNamespace)
	return errors.Join(r.release(ctx, img.Name), r.release(ctx, digestName(img.Name, img.Digest)))
}

func (r *Runtime) release(ctx context.Context, name string) error {
	_, err := r.client.ImageService().Update(ctx, images.Image{Name: name}, "labels."+labelOrigin, "labels."+labelPinned)
	if err != nil && !errdefs.IsNotFound(err) {
		return explain("release the image "+name, err)
	}
	return nil
}

// K3sContent lists the pieces of the k3s image of this name, the one that the name
// stands for first; nothing while the image is not here as a whole.
func (r *Runtime) K3sContent(ctx context.Context, name string) ([]api.Blob, error) {
	img, err := r.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain("look for the k3s image", err)
	}
	return r.pieces(ctx, img.Target)
}

// pieces walks through an image; nil when something is missing.
func (r *Runtime) pieces(ctx context.Context, root ocispec.Descriptor) ([]api.Blob, error) {
	top, err := r.document(ctx, root)
	if err != nil || top == nil {
		return nil, err
	}
	out := []api.Blob{{MediaType: root.MediaType, Digest: root.Digest.String(), Size: root.Size}}
	if images.IsManifestType(root.MediaType) {
		return r.children(ctx, out, *top)
	}
	for _, d := range top.Manifests { // of which only those for this platform were fetched
		m, err := r.document(ctx, d)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		out[0].Manifests = append(out[0].Manifests, d.Digest.String())
		out = append(out, api.Blob{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size})
		if out, err = r.children(ctx, out, *m); err != nil || out == nil {
			return nil, err
		}
	}
	if len(out) == 1 {
		return nil, nil
	}
	return out, nil
}

// tree is a manifest or an index.
type tree struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

func (r *Runtime) document(ctx context.Context, d ocispec.Descriptor) (*tree, error) {
	if d.Size > maxDocument {
		return nil, fmt.Errorf("read %s: %d bytes are too many", d.Digest, d.Size)
	}
	raw, err := content.ReadBlob(ctx, r.client.ContentStore(), d)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain("read "+d.Digest.String(), err)
	}
	t := new(tree)
	if err := json.Unmarshal(raw, t); err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	return t, nil
}

// children appends what a manifest names; nil when something of it is missing.
func (r *Runtime) children(ctx context.Context, out []api.Blob, m tree) ([]api.Blob, error) {
	if m.Config == nil {
		return nil, nil
	}
	for _, d := range append([]ocispec.Descriptor{*m.Config}, m.Layers...) {
		b := api.Blob{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size}
		if ok, err := (contents{r.client.ContentStore()}).Has(ctx, b); err != nil || !ok {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// ReadAtCloser reads one blob.
type ReadAtCloser interface {
	io.ReaderAt
	io.Closer
}

// OpenBlob opens a blob of an image of pods, or of the k3s image. It is usable
// until ctx ends.
func (r *Runtime) OpenBlob(ctx context.Context, b api.Blob, pods bool) (ReadAtCloser, error) {
	if pods {
		ctx = namespaces.WithNamespace(ctx, podNamespace)
	}
	ra, err := r.client.ContentStore().ReaderAt(ctx, descriptorOf(b))
	if err != nil {
		return nil, explain("open "+b.Digest, err)
	}
	return ra, nil
}
