package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/k3s"
)

// stock is a containerd's content and images, in memory.
type stock struct {
	mu     sync.Mutex
	blobs  map[string][]byte
	k3s    []agentapi.Blob
	pods   map[string]k3s.PodImage
	writes []string // digests of what was transferred
}

func newStock() *stock { return &stock{blobs: map[string][]byte{}, pods: map[string]k3s.PodImage{}} }

// Has implements k3s.Store.
func (s *stock) Has(_ context.Context, b agentapi.Blob) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.blobs[b.Digest]
	return ok, nil
}

// Write implements k3s.Store.
func (s *stock) Write(_ context.Context, b agentapi.Blob, r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(raw); "sha256:"+hex.EncodeToString(sum[:]) != b.Digest {
		return errors.New("the content is another one")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[b.Digest], s.writes = raw, append(s.writes, b.Digest)
	return nil
}

// Discard implements k3s.Store.
func (s *stock) Discard(context.Context, agentapi.Blob) error { return nil }

// noting is a store that notes the pieces of one image.
type noting struct {
	*stock
	pieces []agentapi.Blob
}

func (n *noting) Has(ctx context.Context, b agentapi.Blob) (bool, error) {
	n.pieces = append(n.pieces, b)
	return n.stock.Has(ctx, b)
}

// take imports and returns the pieces, in containerd's order.
func (s *stock) take(ctx context.Context, fill k3s.Fill) ([]agentapi.Blob, error) {
	n := &noting{stock: s}
	root, err := fill(ctx, n)
	if err != nil {
		return nil, err
	}
	out := []agentapi.Blob{root}
	for _, b := range slices.Backward(n.pieces) {
		if !slices.ContainsFunc(out, func(x agentapi.Blob) bool { return x.Digest == b.Digest }) {
			out = append(out, b)
		}
	}
	return out, nil
}

func (s *stock) importK3s(ctx context.Context, _ string, fill k3s.Fill) error {
	pieces, err := s.take(ctx, fill)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.k3s = pieces
	}
	return err
}

func (s *stock) k3sDigest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.k3s == nil {
		return ""
	}
	return s.k3s[0].Digest
}

func (s *stock) images() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for n, img := range s.pods {
		out[n] = img.Digest
	}
	return out
}

func (f *fakeRuntime) PodImages(context.Context) ([]k3s.PodImage, error) {
	if f.stock == nil {
		return nil, nil
	}
	f.stock.mu.Lock()
	defer f.stock.mu.Unlock()
	return slices.Collect(maps.Values(f.stock.pods)), nil
}

func (f *fakeRuntime) ImportPodImage(ctx context.Context, img k3s.PodImage, fill k3s.Fill) error {
	pieces, err := f.stock.take(ctx, fill)
	if err != nil {
		return err
	}
	f.stock.mu.Lock()
	defer f.stock.mu.Unlock()
	img.Blob, img.Blobs = pieces[0], pieces
	f.stock.pods[img.Name] = img
	return nil
}

func (f *fakeRuntime) ReleasePodImage(_ context.Context, img k3s.PodImage) error {
	f.stock.mu.Lock()
	defer f.stock.mu.Unlock()
	delete(f.stock.pods, img.Name)
	return nil
}

func (f *fakeRuntime) K3sContent(context.Context, string) ([]agentapi.Blob, error) {
	if f.stock == nil {
		return nil, nil
	}
	f.stock.mu.Lock()
	defer f.stock.mu.Unlock()
	return f.stock.k3s, nil
}

func (f *fakeRuntime) OpenBlob(_ context.Context, b agentapi.Blob, _ bool) (k3s.ReadAtCloser, error) {
	f.stock.mu.Lock()
	defer f.stock.mu.Unlock()
	raw, ok := f.stock.blobs[b.Digest]
	if !ok {
		return nil, errors.New("it was not there")
	}
	return noClose{bytes.NewReader(raw)}, nil
}

type noClose struct{ io.ReaderAt }

func (noClose) Close() error { return nil }
