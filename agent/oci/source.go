package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// refNameAnnotation names an entry of a layout's index (OCI image specification, annotations).
const refNameAnnotation = "org.opencontainers.image.ref.name"

// sourcesOf lists where the image may come from, best first.
func sourcesOf(ref Ref, opts Options) ([]source, error) {
	if ref.Local() {
		return []source{&layoutSource{ref: ref, path: layout.Path(ref.dir)}}, nil
	}
	var out []source
	for _, m := range opts.Mirrors {
		r, err := mirrored(ref.remote, m)
		if err != nil {
			return nil, fmt.Errorf("use mirror %q: %w", m, err)
		}
		out = append(out, &registrySource{ref: r, opts: opts})
	}
	return append(out, &registrySource{ref: ref.remote, opts: opts}), nil
}

// mirrored rewrites a reference to the same repository, below the mirror's path.
func mirrored(ref name.Reference, mirror string) (name.Reference, error) {
	u, err := url.Parse(mirror)
	if err != nil {
		return nil, err
	}
	if u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("write it like https://host:port")
	}
	var opts []name.Option
	port := ":443"
	if u.Scheme == "http" {
		opts, port = append(opts, name.Insecure), ":80"
	}
	host := u.Host
	if u.Port() == "" && !strings.Contains(host, ".") {
		host += port // a bare word would be read as a repository of Docker Hub
	}
	path := strings.Trim(strings.TrimSuffix(strings.Trim(u.Path, "/"), "v2"), "/")
	repo := strings.TrimPrefix(path+"/"+ref.Context().RepositoryStr(), "/")
	sep := ":"
	if _, ok := ref.(name.Digest); ok {
		sep = "@"
	}
	return name.ParseReference(host+"/"+repo+sep+ref.Identifier(), opts...)
}

// registrySource speaks the distribution protocol. Credentials are not used: what a node starts from must not need any.
type registrySource struct {
	ref  name.Reference
	opts Options
}

func (s *registrySource) name() string { return s.ref.Context().Name() }

func (s *registrySource) options(ctx context.Context) []remote.Option {
	o := []remote.Option{
		remote.WithContext(ctx),
		remote.WithUserAgent("kairos"),
		// Retrying is this package's, so that it is bounded in one place.
		remote.WithRetryStatusCodes(), remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	}
	base := s.opts.Transport
	if base == nil {
		base = remote.DefaultTransport
	}
	return append(o, remote.WithTransport(bounded{base}))
}

func (s *registrySource) root(ctx context.Context) ([]byte, types.MediaType, error) {
	d, err := remote.Get(s.ref, s.options(ctx)...)
	if err != nil {
		return nil, "", explainRemote(err)
	}
	return d.Manifest, d.MediaType, nil
}

func (s *registrySource) open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	at := s.ref.Context().Digest(d.Digest.String())
	if d.MediaType.IsImage() || d.MediaType.IsIndex() {
		got, err := remote.Get(at, s.options(ctx)...)
		if err != nil {
			return nil, explainRemote(err)
		}
		return io.NopCloser(strings.NewReader(string(got.Manifest))), nil
	}
	l, err := remote.Layer(at, s.options(ctx)...)
	if err != nil {
		return nil, explainRemote(err)
	}
	rc, err := l.Compressed()
	return rc, explainRemote(err)
}

// explainRemote maps a registry's refusal to a sentinel, keeping its words.
func explainRemote(err error) error {
	var te *transport.Error
	if errors.As(err, &te) && (te.StatusCode == http.StatusNotFound || te.StatusCode == http.StatusUnauthorized) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// maxRedirects is that of net/http's own client, which the library's replaces by no limit.
const maxRedirects = 10

// bounded limits what an answer may cost: the number of redirects, and the body
// of manifests, which are read whole into memory.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	hops := 0
	for r := req.Response; r != nil && r.Request != nil; r = r.Request.Response {
		if hops++; hops > maxRedirects {
			return nil, fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil || !strings.Contains(req.URL.Path, "/manifests/") {
		return resp, err
	}
	if resp.ContentLength > maxManifest {
		return nil, errors.Join(fmt.Errorf("%w: a manifest of %d bytes", ErrTooLarge, resp.ContentLength), resp.Body.Close())
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxManifest), resp.Body}
	return resp, nil
}

// layoutSource reads an OCI image layout.
type layoutSource struct {
	ref  Ref
	path layout.Path
}

func (s *layoutSource) name() string { return s.ref.dir }

func (s *layoutSource) root(ctx context.Context) ([]byte, types.MediaType, error) {
	raw, err := readFile(filepath.Join(s.ref.dir, "index.json"))
	if err != nil {
		return nil, "", err
	}
	d, whole, err := s.entry(raw)
	if err != nil {
		return nil, "", err
	}
	if whole {
		return raw, types.OCIImageIndex, nil
	}
	if d.Size > maxManifest {
		return nil, "", fmt.Errorf("%w: %d bytes", ErrTooLarge, d.Size)
	}
	rc, err := s.open(ctx, d)
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(newVerifier(rc, d))
	return b, d.MediaType, errors.Join(err, rc.Close())
}

// entry finds the descriptor that the reference names; whole means that the
// layout's own index is the multi-platform index.
func (s *layoutSource) entry(raw []byte) (d v1.Descriptor, whole bool, err error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return d, false, fmt.Errorf("decode index.json: %w", err)
	}
	var names []string
	var images []v1.Descriptor
	for _, d := range index.Manifests {
		n := d.Annotations[refNameAnnotation]
		byDigest := s.ref.digest != (v1.Hash{}) && d.Digest == s.ref.digest
		byTag := s.ref.digest == (v1.Hash{}) && s.ref.tag != "" && (n == s.ref.tag || strings.HasSuffix(n, ":"+s.ref.tag))
		if byDigest || byTag {
			return d, false, nil
		}
		if IsSignatureTag(n) {
			continue
		}
		images = append(images, d)
		names = append(names, strings.TrimSpace(n+" "+d.Digest.String()))
	}
	switch {
	case s.ref.digest != (v1.Hash{}) || s.ref.tag != "":
		return d, false, fmt.Errorf("%w: the layout holds %q", ErrNotFound, names)
	case len(images) == 1:
		return images[0], false, nil
	}
	return d, true, nil
}

func (s *layoutSource) open(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	rc, err := s.path.Blob(d.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: blob %s: %w", ErrNotFound, d.Digest, err)
	}
	return rc, err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	return b, errors.Join(err, f.Close())
}
