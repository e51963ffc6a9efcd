package k3s

import (
	"bytes"
	"context"
	"errors"
	"io"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"

	"github.com/kairos-io/kairos/agent/api"
)

// indexed puts an index above the pieces of an image. The other platform in it
// was not fetched.
func indexed(t *testing.T, pieces []piece) []piece {
	t.Helper()
	m := pieces[len(pieces)-1]
	index := newPiece("application/vnd.oci.image.index.v1+json", encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": []any{
			map[string]any{"mediaType": m.MediaType, "digest": "sha256:" + strings.Repeat("5", 64), "size": 500, "platform": map[string]any{"os": "linux", "architecture": "s390x"}},
			map[string]any{"mediaType": m.MediaType, "digest": m.Digest, "size": m.Size, "platform": map[string]any{"os": "linux", "architecture": goruntime.GOARCH}},
		},
	}))
	index.Manifests = []string{m.Digest}
	return append(slices.Clone(pieces), index)
}

// collect makes containerd throw away what nothing refers to, and waits for it.
func collect(t *testing.T, r *Runtime) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), podNamespace)
	l, err := r.client.LeasesService().Create(ctx, leases.WithID("collect"))
	if err == nil {
		err = r.client.LeasesService().Delete(ctx, l, leases.SynchronousDelete)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func podImages(t *testing.T, r *Runtime) []PodImage {
	t.Helper()
	list, err := r.PodImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestImportPodImage(t *testing.T) {
	r := newDaemon(t).open(t)
	const name = "registry.k8s.io/pause:3.10"
	pieces, n := indexed(t, testImage(t, "pause")), 0
	root := pieces[3]
	for range 2 {
		if err := r.ImportPodImage(t.Context(), PodImage{Name: name, Baked: true}, fill(pieces, &n)); err != nil {
			t.Fatal(err)
		}
	}
	if n != 4 {
		t.Errorf("%d blobs written for two imports of 4", n)
	}
	collect(t, r)
	list := podImages(t, r)
	if len(list) != 1 || list[0].Name != name || !list[0].Baked || list[0].Digest != root.Digest || len(list[0].Blobs) != 4 {
		t.Fatalf("after garbage collection: %+v", list)
	}
	for _, b := range list[0].Blobs {
		ra, err := r.OpenBlob(t.Context(), b, true)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(io.NewSectionReader(ra, 0, b.Size))
		if err := errors.Join(err, ra.Close()); err != nil || digest.FromBytes(raw).String() != b.Digest {
			t.Errorf("%s: %v", b.Digest, err)
		}
	}
	// As the kubelet finds it: by the tag, by the digest, and not to be removed.
	ctx := namespaces.WithNamespace(t.Context(), podNamespace)
	for _, n := range []string{name, "registry.k8s.io/pause@" + root.Digest} {
		img, err := r.client.ImageService().Get(ctx, n)
		if err != nil || img.Target.Digest.String() != root.Digest || img.Labels["io.cri-containerd.pinned"] != "pinned" {
			t.Errorf("%s: %+v, %v", n, img, err)
		}
	}
	if _, err := r.client.ImageService().Get(t.Context(), name); err == nil {
		t.Error("it is among the images of kairos' own namespace")
	}
}

// The OS was upgraded and brings other content under the name.
func TestImportPodImageMovesTheName(t *testing.T) {
	r := newDaemon(t).open(t)
	n := 0
	one, two := testImage(t, "one"), testImage(t, "two")
	for i, pieces := range [][]piece{one, two} {
		if err := r.ImportPodImage(t.Context(), PodImage{Name: "r.example/a:1", Baked: i == 0}, fill(pieces, &n)); err != nil {
			t.Fatal(err)
		}
	}
	list := podImages(t, r)
	if len(list) != 1 || list[0].Name != "r.example/a:1" || list[0].Digest != two[2].Digest || list[0].Baked {
		t.Errorf("got %+v, want what came last, from a member", list)
	}
	// The old content is an ordinary image now, and so is all that is released.
	unpinned := func(name string) {
		t.Helper()
		img, err := r.client.ImageService().Get(namespaces.WithNamespace(t.Context(), podNamespace), name)
		if err != nil || len(img.Labels) != 0 {
			t.Errorf("%s: %v, %v", name, img.Labels, err)
		}
	}
	unpinned("r.example/a@" + one[2].Digest)
	if err := r.ReleasePodImage(t.Context(), list[0]); err != nil {
		t.Fatal(err)
	}
	unpinned("r.example/a:1")
	unpinned("r.example/a@" + two[2].Digest)
	if list := podImages(t, r); len(list) != 0 {
		t.Errorf("released and still offered: %+v", list)
	}
}

// What somebody else pulled under the name stays as it is.
func TestImportPodImageSparesForeignImages(t *testing.T) {
	r := newDaemon(t).open(t)
	n := 0
	pieces := testImage(t, "theirs")
	ctx := namespaces.WithNamespace(t.Context(), podNamespace)
	root, err := fill(pieces, &n)(ctx, contents{r.client.ContentStore()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.ImageService().Create(ctx, images.Image{Name: "r.example/a:1", Target: descriptorOf(root)}); err != nil {
		t.Fatal(err)
	}
	err = r.ImportPodImage(t.Context(), PodImage{Name: "r.example/a:1"}, func(context.Context, Store) (api.Blob, error) {
		t.Error("fetched what would not be used")
		return api.Blob{}, errors.New("unused")
	})
	if !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
	if list := podImages(t, r); len(list) != 0 {
		t.Errorf("a foreign image is ours to give away: %+v", list)
	}
}

// A transfer that failed half-way leaves no image, and the next one goes on.
func TestImportPodImageGoesOn(t *testing.T) {
	r := newDaemon(t).open(t)
	pieces, n := testImage(t, "one"), 0
	cut := errors.New("the member went away")
	err := r.ImportPodImage(t.Context(), PodImage{Name: "r.example/a:1"}, func(ctx context.Context, s Store) (api.Blob, error) {
		_, err := fill(pieces[:2], &n)(ctx, s)
		return api.Blob{}, errors.Join(err, cut)
	})
	collect(t, r)
	if list := podImages(t, r); !errors.Is(err, cut) || len(list) != 0 {
		t.Fatalf("half an image: %v, %+v", err, list)
	}
	if err := r.ImportPodImage(t.Context(), PodImage{Name: "r.example/a:1"}, fill(pieces, &n)); err != nil || n != 3 {
		t.Errorf("%v; %d blobs written in all, want 3", err, n)
	}
}

// An image of which something was lost is not offered to others.
func TestPodImagesLeavesOutIncompleteOnes(t *testing.T) {
	r := newDaemon(t).open(t)
	pieces, n := indexed(t, testImage(t, "one")), 0
	if err := r.ImportPodImage(t.Context(), PodImage{Name: "r.example/a:1"}, fill(pieces, &n)); err != nil {
		t.Fatal(err)
	}
	ctx := namespaces.WithNamespace(t.Context(), podNamespace)
	for _, i := range []int{1, 2} { // the layer, then the manifest
		if err := r.client.ContentStore().Delete(ctx, digest.Digest(pieces[i].Digest)); err != nil {
			t.Fatal(err)
		}
		if list := podImages(t, r); len(list) != 0 {
			t.Errorf("without piece %d: %+v", i, list)
		}
	}
}

// An index is a good k3s image: it is what a pinned reference names.
func TestImportImageByIndex(t *testing.T) {
	r := newDaemon(t).open(t)
	pieces, n := indexed(t, testImage(t, "k3s")), 0
	const name = "example.com/k3s:v1"
	if err := r.ImportImage(t.Context(), name, fill(pieces, &n)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ImageDigest(t.Context(), name); err != nil || got != pieces[3].Digest {
		t.Errorf("digest %q, %v", got, err)
	}
	if _, cfg, err := r.imageConfig(t.Context(), name); err != nil || cfg.Entrypoint[0] != "/bin/k3s" {
		t.Errorf("configuration %+v, %v", cfg, err)
	}
	if blobs, err := r.K3sContent(t.Context(), name); err != nil || len(blobs) != 4 || blobs[0].Digest != pieces[3].Digest {
		t.Errorf("content %+v, %v", blobs, err)
	}
	if blobs, err := r.K3sContent(t.Context(), "example.com/k3s:v2"); err != nil || blobs != nil {
		t.Errorf("an image that is not there: %+v, %v", blobs, err)
	}
	if _, err := r.OpenBlob(t.Context(), api.Blob{Digest: "sha256:" + strings.Repeat("0", 64), Size: 1}, false); err == nil {
		t.Error("opened a blob that is not there")
	}
}

// seeking counts from where it is read.
type seeking struct {
	*bytes.Reader
	from int64
}

func (s *seeking) Seek(offset int64, whence int) (int64, error) {
	s.from = offset
	return s.Reader.Seek(offset, whence)
}

func TestContentGoesOnInTheMiddle(t *testing.T) {
	c := contents{newDaemon(t).open(t).client.ContentStore()}
	p := newPiece("application/octet-stream", bytes.Repeat([]byte("k3s"), 1<<20))
	if err := c.Write(t.Context(), p.Blob, io.MultiReader(bytes.NewReader(p.raw[:2<<20]), brokenReader{})); err == nil {
		t.Fatal("half a blob was taken")
	}
	s := &seeking{Reader: bytes.NewReader(p.raw)}
	if err := c.Write(t.Context(), p.Blob, s); err != nil || s.from == 0 {
		t.Errorf("from %d: %v", s.from, err)
	}
	// What is known to be wrong is not gone on from.
	q := newPiece("application/octet-stream", bytes.Repeat([]byte("K3S"), 1<<20))
	if err := c.Write(t.Context(), q.Blob, io.MultiReader(bytes.NewReader(p.raw[:2<<20]), brokenReader{})); err == nil {
		t.Fatal("half a blob was taken")
	}
	if err := errors.Join(c.Discard(t.Context(), q.Blob), c.Discard(t.Context(), q.Blob)); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(t.Context(), q.Blob, onlyReader{bytes.NewReader(q.raw)}); err != nil {
		t.Errorf("after it was dropped: %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the cable was pulled") }
