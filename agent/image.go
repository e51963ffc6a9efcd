package agent

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/oci"
)

// pullLimit bounds one try to get the image; what arrived is kept for the next.
const pullLimit = 30 * time.Minute

// puller gets k3s' image beside the loop. Its methods are safe for concurrent use.
type puller struct {
	ref     oci.Ref
	hosts   string
	runtime images
	base    context.Context // the agent's own, which outlives a turn
	wg      sync.WaitGroup

	mu      sync.Mutex
	running bool
	done    int64 // bytes, of total
	total   int64
	err     error         // of the last try
	fails   int           // in a row
	next    time.Time     // no try before
	digest  string        // of a layout on disk, once resolved
	changed chan struct{} // closed when a try ends
}

func newPuller(image, hostsDir string, rt images) (*puller, error) {
	if image == "" {
		image = k3s.DefaultImage
	}
	if hostsDir == "" {
		hostsDir = oci.DefaultHostsDir
	}
	ref, err := oci.ParseRef(image)
	if err != nil {
		return nil, fmt.Errorf("k3s.image: %w", err)
	}
	return &puller{ref: ref, hosts: hostsDir, runtime: rt, digest: ref.Digest(), changed: make(chan struct{})}, nil
}

// wanted returns the digest that the image must have: "" when the reference
// leaves it open. A layout on disk is looked into, so that an upgrade of the OS
// that brings another k3s under the same name is noticed.
func (p *puller) wanted(ctx context.Context) (string, error) {
	p.mu.Lock()
	digest := p.digest
	p.mu.Unlock()
	if digest != "" || !p.ref.Local() {
		return digest, nil
	}
	img, err := oci.Resolve(ctx, p.ref, oci.Options{Attempts: 1})
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.digest = img.Digest
	return img.Digest, nil
}

// has reports whether the image is in containerd.
func (p *puller) has(ctx context.Context) (bool, error) {
	digest, err := p.wanted(ctx)
	if err != nil {
		return false, err
	}
	return p.runtime.HasImage(ctx, p.ref.String(), digest)
}

// Changed returns a channel that is closed when a try ends.
func (p *puller) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// start begins a try unless one runs or it is too early, and says what there is to wait for.
func (p *puller) start(now time.Time) (state string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.running && p.total > 0:
		return fmt.Sprintf("getting the k3s image %s: %d of %d MB", p.ref, p.done>>20, p.total>>20), nil
	case p.running:
		return fmt.Sprintf("getting the k3s image %s", p.ref), nil
	case now.Before(p.next):
		return "", fmt.Errorf("get the k3s image (next try in %s): %w", p.next.Sub(now).Round(time.Second), p.err)
	}
	p.running, p.done, p.total = true, 0, 0
	p.wg.Go(func() { p.try(p.base) })
	return fmt.Sprintf("getting the k3s image %s", p.ref), nil
}

func (p *puller) try(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pullLimit)
	defer cancel()
	err := p.pull(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.err = false, err
	p.fails++
	if err == nil {
		p.fails = 0
	}
	p.next = time.Now().Add(pauseAfter(p.fails))
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *puller) pull(ctx context.Context) error {
	mirrors, err := oci.Mirrors(p.hosts, p.ref.Registry())
	if err != nil {
		return err
	}
	opts := oci.Options{Mirrors: mirrors, Progress: p.progress}
	return p.runtime.ImportImage(ctx, p.ref.String(), func(ctx context.Context, c *k3s.Content) (k3s.Blob, error) {
		img, err := oci.Pull(ctx, p.ref, contentStore{c}, opts)
		return blobOf(img.Blob), err
	})
}

func (p *puller) progress(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

// wait returns when no try runs any more.
func (p *puller) wait() { p.wg.Wait() }

// contentStore lets package oci write into containerd: the two do not know each other.
type contentStore struct{ c *k3s.Content }

// Has implements oci.Store.
func (s contentStore) Has(ctx context.Context, b oci.Blob) (bool, error) {
	return s.c.Has(ctx, blobOf(b))
}

// Write implements oci.Store.
func (s contentStore) Write(ctx context.Context, b oci.Blob, r io.Reader) error {
	return s.c.Write(ctx, blobOf(b), r)
}

func blobOf(b oci.Blob) k3s.Blob {
	return k3s.Blob{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size, Config: b.Config, Layers: b.Layers}
}

// pauseAfter is how long to wait after so many failures in a row.
func pauseAfter(fails int) time.Duration {
	if fails == 0 {
		return 0
	}
	return min(time.Second<<min(fails, 6), time.Minute)
}

// backoff spaces the starts of k3s when it does not stay up. The zero value is ready.
type backoff struct {
	fails int
	next  time.Time
}

// failed notes that k3s had to be started again (or could not be).
func (b *backoff) failed(now time.Time) {
	b.fails++
	b.next = now.Add(pauseAfter(b.fails))
}

// worked forgets the failures.
func (b *backoff) worked() { *b = backoff{} }
