package oci

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// layoutScheme starts a reference to an image layout on disk.
const layoutScheme = "oci:"

// Ref says where an image is. The zero Ref is not usable; ParseRef makes one.
type Ref struct {
	text   string
	dir    string // layout on disk; empty for a registry
	tag    string // layout: the value of org.opencontainers.image.ref.name, may be empty
	digest v1.Hash
	remote name.Reference
	named  string // registry/repository:tag as containerd writes it, without a digest
}

// ParseRef reads an image reference in one of these forms:
//
//	[REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST]
//	oci:/DIRECTORY[:TAG][@sha256:DIGEST]
func ParseRef(s string) (Ref, error) {
	if rest, ok := strings.CutPrefix(s, layoutScheme); ok {
		return parseLayoutRef(s, rest)
	}
	remote, err := name.ParseReference(s)
	if err != nil {
		return Ref{}, fmt.Errorf("parse image reference %q: %w", s, err)
	}
	r := Ref{text: s, remote: remote, named: nameOf(s, remote)}
	if d, ok := remote.(name.Digest); ok {
		if r.digest, err = v1.NewHash(d.DigestStr()); err != nil {
			return Ref{}, fmt.Errorf("parse image reference %q: %w", s, err)
		}
	}
	return r, nil
}

// DigestRef refers to an image by its digest alone ("sha256:..."): it may be baked
// or at a member, and is asked for nowhere else.
func DigestRef(digest string) (Ref, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return Ref{}, fmt.Errorf("parse digest %q: %w", digest, err)
	}
	return Ref{text: digest, digest: h}, nil
}

func parseLayoutRef(s, rest string) (Ref, error) {
	r := Ref{text: s}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		h, err := v1.NewHash(rest[at+1:])
		if err != nil {
			return Ref{}, fmt.Errorf("parse image reference %q: %w", s, err)
		}
		r.digest, rest = h, rest[:at]
	}
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		r.tag, rest = rest[colon+1:], rest[:colon]
	}
	if !filepath.IsAbs(rest) {
		return Ref{}, fmt.Errorf("parse image reference %q: the directory of a layout must be absolute, like oci:/usr/share/images/k3s", s)
	}
	r.dir = filepath.Clean(rest)
	return r, nil
}

// String returns the reference as it was written.
func (r Ref) String() string { return r.text }

// Digest returns the digest that the reference names ("sha256:..."), or "" when it names none.
func (r Ref) Digest() string {
	if r.digest == (v1.Hash{}) {
		return ""
	}
	return r.digest.String()
}

// Local reports whether the image is on this machine's disk, so that resolving it is cheap.
func (r Ref) Local() bool { return r.dir != "" }

// WithTag returns a reference to another tag of the same repository or layout.
func (r Ref) WithTag(tag string) Ref {
	out := Ref{dir: r.dir, tag: tag}
	if r.Local() {
		out.text = layoutScheme + r.dir + ":" + tag
		return out
	}
	t := r.remote.Context().Tag(tag)
	out.remote, out.text, out.named = t, t.Name(), repositoryOf(t)+":"+tag
	return out
}

// IsZero reports whether r is not a reference.
func (r Ref) IsZero() bool { return r.text == "" }

// Name returns registry/repository:tag the way containerd calls images: with the
// registry's host and the tag written out. Without a tag but with a digest it is
// registry/repository@digest; a layout has no name, nor has a digest alone.
func (r Ref) Name() string { return r.named }

// nameOf writes a reference out. go-containerregistry forgets the tag of one that
// has a digest as well.
func nameOf(s string, ref name.Reference) string {
	rest, _, digested := strings.Cut(s, "@")
	if !digested {
		return repositoryOf(ref) + ":" + ref.Identifier()
	}
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		return repositoryOf(ref) + rest[colon:]
	}
	return repositoryOf(ref) + "@" + ref.Identifier()
}

func repositoryOf(ref name.Reference) string {
	host := ref.Context().RegistryStr()
	if host == name.DefaultRegistry {
		host = "docker.io"
	}
	return host + "/" + ref.Context().RepositoryStr()
}

// Registry returns the host of the registry, "" for a layout.
func (r Ref) Registry() string {
	if r.remote == nil {
		return ""
	}
	return r.remote.Context().RegistryStr()
}
