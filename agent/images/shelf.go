package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	goruntime "runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/agent/seed"
	"github.com/kairos-io/kairos/overlay/identity"
)

// spot is where a blob that may be given away is.
type spot struct {
	blob  api.Blob
	baked bool // in the layout, else in containerd
	pods  bool // there among the images for pods, else with k3s
}

// refresh finds out what images are here, and with it what can be given away.
func (s *Seeder) refresh(ctx context.Context) error {
	imported, err := s.images.PodImages(ctx)
	if err != nil {
		return err
	}
	k3sBlobs, err := s.images.K3sContent(ctx, s.puller.ref.String())
	if err != nil {
		return err
	}
	s.imported = imported
	index := seed.Index{Complete: s.read}
	shelf := map[string]spot{}
	add := func(img seed.Image, where spot, blobs []api.Blob) {
		if slices.ContainsFunc(index.Images, func(x seed.Image) bool { return x.Name == img.Name && x.Use == img.Use }) {
			return // listed as baked
		}
		index.Images = append(index.Images, img)
		for _, b := range blobs {
			if _, ok := shelf[b.Digest]; !ok {
				where.blob = b
				shelf[b.Digest] = where
			}
		}
	}
	for _, n := range s.own {
		img, blobs := entryOf(n.Name, piecesOf(n.Image))
		if img.Baked = true; s.isK3s(n) {
			img.Use = seed.ForK3s
		}
		add(img, spot{baked: true}, blobs)
	}
	for _, p := range imported {
		img, blobs := entryOf(p.Name, p.Blobs)
		if !p.Baked {
			img.By = s.origins.of(p)
		}
		add(img, spot{pods: true}, blobs)
	}
	if len(k3sBlobs) > 0 {
		img, blobs := entryOf(s.puller.ref.Name(), k3sBlobs)
		img.Use = seed.ForK3s
		add(img, spot{}, blobs)
	}
	s.index = index
	return s.putOut(index, shelf)
}

// keptIndexes is how many are kept for those who have not heard of the newest one yet.
const keptIndexes = 8

// published is an index of which others may have heard.
type published struct {
	tag string
	raw []byte
}

func (s *Seeder) putOut(index seed.Index, shelf map[string]spot) error {
	raw, tag, err := index.Encode()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shelf = shelf; tag == s.tag {
		return nil
	}
	s.tag = tag
	s.indexes = append([]published{{tag, raw}}, s.indexes[:min(len(s.indexes), keptIndexes-1)]...)
	s.Notify()
	return nil
}

// piecesOf lists an image of a layout the way containerd's are listed.
func piecesOf(img oci.Image) []api.Blob {
	out := []api.Blob{img.Blob}
	if img.Manifest.Digest != img.Digest {
		out = append(out, img.Manifest)
	}
	return append(out, img.Content...)
}

// entryOf describes an image by its pieces.
func entryOf(name string, blobs []api.Blob) (seed.Image, []api.Blob) {
	root, rest := blobs[0], blobs[1:]
	img := seed.Image{Name: name, Digest: root.Digest, Size: root.Size, Manifest: root.Digest, ManifestSize: root.Size,
		Arch: goruntime.GOARCH, Use: seed.ForPods}
	if len(root.Manifests) > 0 {
		img.Manifest, img.ManifestSize, rest = rest[0].Digest, rest[0].Size, rest[1:]
	}
	for _, b := range rest {
		img.Total += b.Size
	}
	return img, blobs
}

// Index implements seed.Shelf.
func (s *Seeder) Index(tag string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.indexes {
		if x.tag == tag {
			return x.raw
		}
	}
	return nil
}

// Open implements seed.Shelf.
func (s *Seeder) Open(ctx context.Context, digest string) (seed.Content, int64, error) {
	s.mu.Lock()
	at, ok := s.shelf[digest]
	s.mu.Unlock()
	if !ok {
		return nil, 0, seed.ErrNobody
	}
	if !at.baked {
		body, err := s.images.OpenBlob(ctx, at.blob, at.pods)
		return body, at.blob.Size, err
	}
	f, err := oci.OpenBlob(s.baked, digest)
	if err != nil {
		return nil, 0, err
	}
	return f, at.blob.Size, nil
}

// ServeIndex answers another agent with what this machine can give.
func (s *Seeder) ServeIndex(w http.ResponseWriter, r *http.Request) { s.server.ServeIndex(w, r) }

// ServeBlob gives caller a piece of an image.
func (s *Seeder) ServeBlob(w http.ResponseWriter, r *http.Request, caller identity.ID) {
	s.server.ServeBlob(w, r, caller)
}

// membersPlace lets package oci read from members: the two do not know each
// other. It is good for one pull.
type membersPlace struct {
	client *seed.Client
	found  func() // called when a member has what is looked for
	image  string // digest of what Root found
}

// Name implements oci.Place.
func (*membersPlace) Name() string { return "members" }

// Root implements oci.Place.
func (p *membersPlace) Root(ctx context.Context, ref oci.Ref) (api.Blob, error) {
	img, err := p.client.Find(ctx, ref.Name(), ref.Digest())
	if errors.Is(err, seed.ErrNobody) {
		return api.Blob{}, fmt.Errorf("%w: %w", oci.ErrNotFound, err)
	}
	if err == nil {
		p.image = img.Digest
		p.found()
	}
	return api.Blob{Digest: img.Digest, Size: img.Size}, err
}

// Open implements oci.Place.
func (p *membersPlace) Open(ctx context.Context, b api.Blob, offset int64) (io.ReadCloser, error) {
	return p.client.Open(ctx, seed.Piece{Image: p.image, Digest: b.Digest, Size: b.Size}, offset), nil
}

// Blame implements oci.Place.
func (p *membersPlace) Blame(b api.Blob) bool { return p.client.Blame(b.Digest) }

// DiskOf returns how to measure the disk that holds dir; containerd's is the same one.
func DiskOf(dir string) func() (free, size uint64, err error) {
	return func() (uint64, uint64, error) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return 0, 0, err
		}
		return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
	}
}
