package oci

import (
	"context"
	"errors"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Reader reads what a reference names piece by piece, for artifacts that are no
// container images. Every piece is looked for in each source, mirrors first, and
// verified. It is safe for concurrent use.
type Reader struct {
	ref  Ref
	opts Options // Arch and Progress are not used
}

// NewReader returns a reader; nothing is asked yet.
func NewReader(ref Ref, opts Options) *Reader { return &Reader{ref, opts.withDefaults()} }

// Document is an index or a manifest with its exact bytes.
type Document struct {
	MediaType string
	Digest    string // "sha256:..."
	Raw       []byte
	Source    string // that it came from, for messages
}

// Root reads the index or manifest that the reference names.
func (r *Reader) Root(ctx context.Context) (Document, error) {
	return eachSource(ctx, r.ref, r.opts, func(src source) (Document, error) {
		raw, mt, err := readRoot(ctx, src, r.ref, r.opts)
		return Document{MediaType: string(mt), Digest: hashOf(raw).String(), Raw: raw, Source: src.name()}, err
	})
}

// Small reads a manifest, a configuration or another small blob into memory.
func (r *Reader) Small(ctx context.Context, b Blob) ([]byte, error) {
	d, err := descriptorOf(b)
	if err != nil {
		return nil, err
	}
	return eachSource(ctx, r.ref, r.opts, func(src source) ([]byte, error) {
		return readSmall(ctx, src, d, r.opts)
	})
}

// Stream passes a blob to write. When a transfer breaks, write fails and is
// called again with the blob from its beginning. An error that is write's own
// ends it at once.
func (r *Reader) Stream(ctx context.Context, b Blob, write func(io.Reader) error) error {
	d, err := descriptorOf(b)
	if err != nil {
		return err
	}
	_, err = eachSource(ctx, r.ref, r.opts, func(src source) (struct{}, error) {
		return struct{}{}, retry(ctx, r.opts, func(ctx context.Context, alive func()) error {
			rc, err := src.open(ctx, d)
			if err != nil {
				return err
			}
			v := newVerifier(rc, d)
			v.alive = alive
			err = write(struct{ io.Reader }{v}) // not its Seek, which would leave the digest to others
			switch {
			case v.err != nil && !errors.Is(v.err, io.EOF):
				err = v.err
			case err != nil:
				err = &writeError{err}
			case v.err == nil:
				err = &writeError{errors.New("it was not read to its end")}
			}
			return blame(src, b, errors.Join(err, rc.Close()))
		})
	})
	return err
}

// writeError is what the receiver of a blob did not like, while the source was fine.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

func descriptorOf(b Blob) (v1.Descriptor, error) {
	h, err := v1.NewHash(b.Digest)
	return v1.Descriptor{MediaType: types.MediaType(b.MediaType), Digest: h, Size: b.Size}, err
}

// SignatureTag is where cosign keeps the signatures of what has this digest: a
// tag of the same repository, or a name in the same layout.
func SignatureTag(digest string) string {
	return strings.Replace(digest, ":", "-", 1) + ".sig"
}

// IsSignatureTag reports whether a name is a SignatureTag.
func IsSignatureTag(name string) bool {
	hex, ok := strings.CutPrefix(name, "sha256-")
	if !ok {
		return false
	}
	hex, ok = strings.CutSuffix(hex, ".sig")
	return ok && len(hex) == 64
}
