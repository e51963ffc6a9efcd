package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kairos-io/kairos/agent/api"
)

// Limits of what is accepted from a registry, far above any honest k3s image.
const (
	maxManifest = 4 << 20 // bytes of an index, a manifest or an image configuration
	maxLayers   = 128
	maxImage    = 4 << 30 // bytes of all blobs together
)

// defaultAttempts is how often one request is tried; the pause doubles from firstPause.
const defaultAttempts = 4

// defaultStall is the value of Options.Stall.
const defaultStall = time.Minute

// Sentinel errors; they come wrapped with what was being fetched.
var (
	ErrDigest   = errors.New("the content does not match its digest")
	ErrPlatform = errors.New("the image is not made for this platform")
	ErrTooLarge = errors.New("the image is larger than allowed")
	ErrNotFound = errors.New("the image is not there")
	ErrStalled  = errors.New("nothing arrived")
)

// Blob describes one piece of an image: the word is the agent's, for all who store one.
type Blob = api.Blob

// Store receives blobs, children before parents. Write must take exactly b.Size
// bytes and may be called again after an error. The reader is an io.Seeker: a
// store that kept the beginning of an unfinished blob may seek past it, and must
// then check the digest of the whole itself. Methods are called from one goroutine.
type Store interface {
	Has(ctx context.Context, b Blob) (bool, error)
	Write(ctx context.Context, b Blob, r io.Reader) error
}

// Options of Pull and Resolve. The zero value is usable.
type Options struct {
	Arch      string        // GOARCH; empty: this program's
	Baked     string        // directory of an image layout in which an image of a registry is looked for first; "": none
	Members   Place         // asked next; nil: nobody
	Mirrors   []Host        // asked in order in place of the registry, as Mirrors says; none: the registry itself
	Keychain  Keychain      // credentials for registries; nil: none
	Attempts  int           // of each request; 0: 4
	Stall     time.Duration // without a byte, after which a request is given up; 0: 1 minute
	Transport http.RoundTripper
	Progress  func(done, total int64) // bytes; called from Pull's goroutine, often

	proven bool // somebody has to vouch for what comes: see there
}

// Image is a pulled or resolved image: what the reference names, and the one
// manifest for one platform.
type Image struct {
	Blob            // what the reference names: a manifest, or the index that Manifest was chosen from
	Manifest Blob   // the same as Blob where there is no index
	Content  []Blob // configuration and layers, in this order
	Total    int64  // bytes of Content
	Source   string
}

// source is one place that can serve an image's content by digest.
type source interface {
	// name says where, for messages.
	name() string
	// root returns the raw index or manifest that the reference names.
	root(ctx context.Context) ([]byte, types.MediaType, error)
	// open returns the content of a blob or of a manifest; the caller verifies it.
	open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
}

// Resolve finds the manifest for this platform without fetching its layers. Like Pull it
// refuses with ErrUnproven what anybody on the way could have put there: an image that
// is named without a digest, from a server that does not prove who it is.
func Resolve(ctx context.Context, ref Ref, opts Options) (Image, error) {
	opts = opts.withDefaults()
	opts.proven = ref.Digest() == ""
	return eachSource(ctx, ref, opts, func(src source) (Image, error) {
		img, _, err := resolveFrom(ctx, src, ref, opts)
		return img, err
	})
}

// Pull fetches the image into the store and returns its manifest. Errors wrap
// the sentinels of this package where one fits; a cancelled context is returned at once.
func Pull(ctx context.Context, ref Ref, store Store, opts Options) (Image, error) {
	opts = opts.withDefaults()
	opts.proven = ref.Digest() == ""
	return eachSource(ctx, ref, opts, func(src source) (Image, error) {
		return pullFrom(ctx, src, pull{ref: ref, store: store, opts: opts})
	})
}

// pull is one call of Pull.
type pull struct {
	ref   Ref
	store Store
	opts  Options
}

func pullFrom(ctx context.Context, src source, p pull) (Image, error) {
	img, m, err := resolveFrom(ctx, src, p.ref, p.opts)
	if err != nil {
		return Image{}, err
	}
	var done int64
	for i, d := range append([]v1.Descriptor{m.manifest.Config}, m.manifest.Layers...) {
		j := job{src: src, store: p.store, desc: d, blob: img.Content[i],
			progress: progress{report: p.opts.Progress, base: done, total: img.Total}}
		if err := copyBlob(ctx, j, p.opts); err != nil {
			return Image{}, fmt.Errorf("fetch %s: %w", d.Digest, err)
		}
		done += d.Size
		j.progress.at(d.Size)
	}
	if err := writeManifest(ctx, p.store, img.Manifest, m.raw); err != nil {
		return Image{}, fmt.Errorf("store the manifest: %w", err)
	}
	if m.index != nil {
		if err := writeManifest(ctx, p.store, img.Blob, m.index); err != nil {
			return Image{}, fmt.Errorf("store the index: %w", err)
		}
	}
	return img, nil
}

// eachSource tries one source after the other until one succeeds.
func eachSource[T any](ctx context.Context, ref Ref, opts Options, f func(source) (T, error)) (T, error) {
	var none T
	sources, err := sourcesOf(ref, opts)
	if err != nil {
		return none, err
	}
	var errs []error
	for _, src := range sources {
		got, err := f(src)
		if err == nil {
			return got, nil
		}
		if _, ok := src.(shortcut); ok && errors.Is(err, ErrNotFound) {
			continue // it had not been expected there
		}
		errs = append(errs, fmt.Errorf("get %s from %s: %w", ref, src.name(), err))
		var own *writeError
		if ctx.Err() != nil || errors.As(err, &own) {
			break
		}
	}
	if len(errs) == 0 {
		return none, fmt.Errorf("get %s: %w", ref, ErrNotFound)
	}
	return none, errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	if o.Attempts <= 0 {
		o.Attempts = defaultAttempts
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	return o
}

// picked is the manifest that was chosen, with its exact bytes, and those of the
// index that it was chosen from, if any.
type picked struct {
	raw      []byte
	manifest *v1.Manifest
	index    []byte
}

func resolveFrom(ctx context.Context, src source, ref Ref, opts Options) (Image, picked, error) {
	raw, mt, err := readRoot(ctx, src, ref, opts)
	if err != nil {
		return Image{}, picked{}, err
	}
	var index []byte
	rootType := mt
	if mt.IsIndex() {
		d, err := choose(raw, opts.Arch)
		if err != nil {
			return Image{}, picked{}, err
		}
		index = raw
		if raw, err = readSmall(ctx, src, d, opts); err != nil {
			return Image{}, picked{}, fmt.Errorf("read manifest %s: %w", d.Digest, err)
		}
		mt = d.MediaType
	}
	m, err := parseManifest(raw)
	if err != nil {
		return Image{}, picked{}, err
	}
	if err := checkConfig(ctx, src, m.manifest.Config, opts); err != nil {
		return Image{}, picked{}, err
	}
	img := imageOf(m, mt)
	img.Source = src.name()
	if index != nil {
		m.index = index
		img.Blob = Blob{MediaType: string(rootType), Digest: hashOf(index).String(), Size: int64(len(index)), Manifests: []string{img.Manifest.Digest}}
	}
	return img, m, nil
}

// readRoot reads the index or manifest that the reference names.
func readRoot(ctx context.Context, src source, ref Ref, opts Options) (raw []byte, mt types.MediaType, err error) {
	err = retry(ctx, opts, func(ctx context.Context, _ func()) (err error) {
		raw, mt, err = src.root(ctx)
		return err
	})
	if err == nil && ref.digest != (v1.Hash{}) {
		err = checkBytes(raw, ref.digest)
	}
	return raw, mt, err
}

func imageOf(m picked, mt types.MediaType) Image {
	b := Blob{MediaType: string(mt), Digest: hashOf(m.raw).String(), Size: int64(len(m.raw)), Config: m.manifest.Config.Digest.String()}
	var img Image
	for i, d := range append([]v1.Descriptor{m.manifest.Config}, m.manifest.Layers...) {
		img.Content = append(img.Content, Blob{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size})
		img.Total += d.Size
		if i > 0 {
			b.Layers = append(b.Layers, d.Digest.String())
		}
	}
	img.Blob, img.Manifest = b, b
	return img
}

// choose picks the manifest for linux/arch. Without a match the error names what there is.
func choose(raw []byte, arch string) (v1.Descriptor, error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return v1.Descriptor{}, fmt.Errorf("decode the image index: %w", err)
	}
	var have []string
	for _, d := range index.Manifests {
		if !d.MediaType.IsImage() {
			continue
		}
		if d.Platform == nil { // told apart by the image configuration later
			if len(index.Manifests) == 1 {
				return d, nil
			}
			continue
		}
		if d.Platform.OS == "linux" && d.Platform.Architecture == arch {
			return d, nil
		}
		have = append(have, d.Platform.OS+"/"+d.Platform.Architecture)
	}
	return v1.Descriptor{}, fmt.Errorf("%w: wanted linux/%s, the index offers %v", ErrPlatform, arch, have)
}

func parseManifest(raw []byte) (picked, error) {
	m := &v1.Manifest{}
	if err := json.Unmarshal(raw, m); err != nil {
		return picked{}, fmt.Errorf("decode the image manifest: %w", err)
	}
	switch {
	case m.Config.Digest == (v1.Hash{}) || len(m.Layers) == 0:
		return picked{}, errors.New("decode the image manifest: no configuration or no layers in it")
	case m.Config.Size < 0 || m.Config.Size > maxManifest:
		return picked{}, fmt.Errorf("%w: a configuration of %d bytes", ErrTooLarge, m.Config.Size)
	case len(m.Layers) > maxLayers:
		return picked{}, fmt.Errorf("%w: %d layers", ErrTooLarge, len(m.Layers))
	}
	total := m.Config.Size
	for _, l := range m.Layers {
		if l.Size < 0 || l.Size > maxImage {
			return picked{}, fmt.Errorf("%w: a layer of %d bytes", ErrTooLarge, l.Size)
		}
		if !l.MediaType.IsDistributable() {
			return picked{}, fmt.Errorf("layer %s is not distributable (%s)", l.Digest, l.MediaType)
		}
		total += l.Size
	}
	if total > maxImage {
		return picked{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, total)
	}
	return picked{raw: raw, manifest: m}, nil
}

// checkConfig reads the image configuration, because a bare manifest names no platform.
func checkConfig(ctx context.Context, src source, d v1.Descriptor, opts Options) error {
	raw, err := readSmall(ctx, src, d, opts)
	if err != nil {
		return fmt.Errorf("read the image configuration: %w", err)
	}
	var c v1.ConfigFile
	if err := json.Unmarshal(raw, &c); err != nil {
		return fmt.Errorf("decode the image configuration: %w", err)
	}
	if c.OS != "linux" || c.Architecture != opts.Arch {
		return fmt.Errorf("%w: wanted linux/%s, it is %s/%s", ErrPlatform, opts.Arch, c.OS, c.Architecture)
	}
	return nil
}
