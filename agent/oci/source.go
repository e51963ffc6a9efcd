package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// sourcesOf lists where the image may come from, best first.
func sourcesOf(ref Ref, opts Options) ([]source, error) {
	if ref.Local() {
		out := []source{&layoutSource{ref: ref, path: layout.Path(ref.dir)}}
		if opts.Members != nil && ref.digest != (v1.Hash{}) { // a directory of this machine means nothing to others
			out = append(out, &placeSource{ref: ref, place: opts.Members})
		}
		return out, nil
	}
	var out []source
	if opts.Baked != "" {
		out = append(out, bakedSource{&layoutSource{ref: ref, path: layout.Path(opts.Baked)}})
	}
	if opts.Members != nil {
		out = append(out, &placeSource{ref: ref, place: opts.Members})
	}
	if ref.remote == nil {
		return out, nil
	}
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

// Keychain finds the credentials of a registry.
type Keychain = authn.Keychain

// registrySource speaks the distribution protocol. A node gives no credentials: what it starts from must not need any.
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
	if s.opts.Keychain != nil {
		o = append(o, remote.WithAuthFromKeychain(s.opts.Keychain))
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
