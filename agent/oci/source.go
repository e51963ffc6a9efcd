package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
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
	if len(opts.Mirrors) == 0 {
		return append(out, &registrySource{ref: ref.remote, opts: opts}), nil
	}
	remotes, err := hostSources(ref.remote, opts)
	return append(out, remotes...), err
}

// hostSources are the servers of a registry that give images. One that may not say what
// a tag stands for leaves that to those which may.
func hostSources(ref name.Reference, opts Options) ([]source, error) {
	var all, resolvers []*registrySource
	for _, h := range opts.Mirrors {
		at, err := h.reference(ref)
		if err != nil {
			return nil, fmt.Errorf("use mirror %s: %w", h.Host, err)
		}
		s := &registrySource{ref: at, opts: opts, host: &h}
		if h.Capabilities.Has(docker.HostCapabilityResolve) {
			resolvers = append(resolvers, s)
		}
		if h.Capabilities.Has(docker.HostCapabilityPull) {
			all = append(all, s)
		}
	}
	var out []source
	for _, s := range all {
		if _, ok := ref.(name.Digest); !ok && !s.host.Capabilities.Has(docker.HostCapabilityResolve) {
			s.resolvers = resolvers
			if len(resolvers) == 0 {
				continue
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// Keychain finds the credentials of a registry.
type Keychain = authn.Keychain

// registrySource speaks the distribution protocol. A node gives no credentials: what it starts from must not need any.
type registrySource struct {
	ref       name.Reference
	opts      Options
	host      *Host             // nil: the registry itself, without settings
	resolvers []*registrySource // that say what the tag stands for in its place; none: it does
}

func (s *registrySource) name() string { return s.ref.Context().Name() }

func (s *registrySource) options(ctx context.Context) []remote.Option {
	o := []remote.Option{
		remote.WithContext(ctx),
		remote.WithUserAgent("kairos"),
		// Retrying is this package's, so that it is bounded in one place.
		remote.WithRetryStatusCodes(), remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	}
	base, doubt := s.opts.Transport, ""
	switch {
	case s.host != nil:
		base, doubt = s.host.Client.Transport, s.host.doubt()
	case base == nil:
		base = remote.DefaultTransport
	}
	if s.opts.proven {
		base = proven{base, doubt}
	}
	if s.host != nil {
		base = hostTransport{*s.host, base}
	}
	if s.opts.Keychain != nil {
		o = append(o, remote.WithAuthFromKeychain(s.opts.Keychain))
	}
	return append(o, remote.WithTransport(bounded{base}))
}

func (s *registrySource) root(ctx context.Context) ([]byte, types.MediaType, error) {
	var errs []error
	for _, r := range s.resolvers {
		raw, mt, err := r.root(ctx)
		if err == nil || ctx.Err() != nil {
			return raw, mt, err
		}
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, "", errors.Join(errs...)
	}
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
