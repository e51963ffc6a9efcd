package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Place is somewhere that serves content by digest and is no registry: the other
// machines of the network. Nothing of what it gives is believed, apart from what a
// name stands for.
type Place interface {
	// Name says where, for messages.
	Name() string
	// Root finds what the reference names; ErrNotFound when nobody has it.
	Root(ctx context.Context, ref Ref) (Blob, error)
	// Open returns the content of b, a part of what Root found last, from offset on.
	Open(ctx context.Context, b Blob, offset int64) (io.ReadCloser, error)
	// Blame tells that what Open gave last for b was not b, and reports whether
	// another Open may do better.
	Blame(b Blob) bool
}

// errOther: one machine sent wrong content, another one may have the right one.
var errOther = errors.New("a machine sent other content than asked for")

// shortcut is a source from which an image may come by luck: that it is not
// there is no failure worth telling.
type shortcut interface{ expected() bool }

type placeSource struct {
	ref   Ref
	place Place
}

func (s *placeSource) expected() bool { return false }

func (s *placeSource) name() string { return s.place.Name() }

func (s *placeSource) root(ctx context.Context) ([]byte, types.MediaType, error) {
	b, err := s.place.Root(ctx, s.ref)
	if err != nil {
		return nil, "", err
	}
	h, err := v1.NewHash(b.Digest)
	if err != nil {
		return nil, "", err
	}
	if b.Size > maxManifest {
		return nil, "", fmt.Errorf("%w: %d bytes", ErrTooLarge, b.Size)
	}
	d := v1.Descriptor{MediaType: types.MediaType(b.MediaType), Size: b.Size, Digest: h}
	rc, err := s.open(ctx, d)
	if err != nil {
		return nil, "", err
	}
	raw, err := io.ReadAll(newVerifier(rc, d))
	if err := blame(s, b, errors.Join(err, rc.Close())); err != nil {
		return nil, "", err
	}
	return raw, mediaTypeOf(raw), nil // rather than what was said about it
}

func (s *placeSource) open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return &resumed{open: func(offset int64) (io.ReadCloser, error) {
		if offset == d.Size {
			return io.NopCloser(bytes.NewReader(nil)), nil
		}
		return s.place.Open(ctx, Blob{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size}, offset)
	}}, nil
}

// resumed opens what it reads when the first byte is wanted, so that it can
// begin where an unfinished blob ends.
type resumed struct {
	open   func(offset int64) (io.ReadCloser, error)
	offset int64
	body   io.ReadCloser
}

// Seek implements io.Seeker, before the first Read only.
func (r *resumed) Seek(offset int64, whence int) (int64, error) {
	if r.body != nil || whence != io.SeekStart {
		return r.offset, errors.New("seek in a transfer that has begun")
	}
	r.offset = offset
	return offset, nil
}

// Read implements io.Reader.
func (r *resumed) Read(p []byte) (int, error) {
	if r.body == nil {
		body, err := r.open(r.offset)
		if err != nil {
			return 0, err
		}
		r.body = body
	}
	return r.body.Read(p)
}

// Close implements io.Closer.
func (r *resumed) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}
