package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/broadcast"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/agent/role"
)

// pullLimit bounds one try to get the image; what arrived is kept for the next.
const pullLimit = 30 * time.Minute

// Puller gets k3s' image beside the agent's loop. It is safe for concurrent use,
// and an Event: it tells when a try ends.
type Puller struct {
	broadcast.Event

	ref     oci.Ref
	hosts   string
	baked   string                       // layout that is looked into first
	members func(found func()) oci.Place // asked next, a new one for each pull
	runtime K3sImages
	wg      sync.WaitGroup

	mu      sync.Mutex
	running bool
	cancel  context.CancelFunc // of the try that runs
	done    int64              // bytes, of total
	total   int64
	err     error     // of the last try
	fails   int       // in a row
	hurried bool      // the try that runs was given up by hurry
	found   bool      // the try that runs gets the image from members
	next    time.Time // no try before
	digest  string    // of what is on disk, once resolved
	looked  bool      // into the baked layout
}

// NewPuller returns a Puller of image ("": k3s.DefaultImage) into rt. A Seeder
// makes it ask members too.
func NewPuller(image string, at Places, rt K3sImages) (*Puller, error) {
	if image == "" {
		image = k3s.DefaultImage
	}
	at = at.orDefault()
	ref, err := oci.ParseRef(image)
	if err != nil {
		return nil, fmt.Errorf("k3s.image: %w", err)
	}
	return &Puller{ref: ref, hosts: at.Hosts, baked: at.Baked, runtime: rt, digest: ref.Digest()}, nil
}

// Image is the reference of the image.
func (p *Puller) Image() string { return p.ref.String() }

// Wanted returns the digest that the image must have: "" when the reference
// leaves it open. What is on disk is looked into, so that an upgrade of the OS
// that brings another k3s under the same name is noticed.
func (p *Puller) Wanted(ctx context.Context) (string, error) {
	p.mu.Lock()
	digest, looked := p.digest, p.looked
	p.mu.Unlock()
	switch {
	case digest != "" || looked:
		return digest, nil
	case !p.ref.Local():
		return p.bakedDigest(ctx), nil
	}
	img, err := oci.Resolve(ctx, p.ref, oci.Options{Attempts: 1})
	if errors.Is(err, oci.ErrNotFound) {
		// The medium that it came from was taken away; what was brought in goes on.
		if got, ierr := p.runtime.ImageDigest(ctx, p.ref.String()); ierr == nil && got != "" {
			return got, nil
		}
	}
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.digest = img.Digest
	return img.Digest, nil
}

// bakedDigest looks the reference's name up in what the OS brought. That this
// cannot be read is told by who imports the rest of it.
func (p *Puller) bakedDigest(ctx context.Context) string {
	list, _ := oci.ReadLayout(ctx, p.baked, goruntime.GOARCH)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked = true
	for _, img := range list {
		if img.Name == p.ref.Name() {
			p.digest = img.Digest
		}
	}
	return p.digest
}

// Has reports whether the image is in containerd.
func (p *Puller) Has(ctx context.Context) (bool, error) {
	digest, err := p.Wanted(ctx)
	if err != nil {
		return false, err
	}
	got, err := p.runtime.ImageDigest(ctx, p.ref.String())
	return got != "" && (digest == "" || got == digest), err
}

// Start begins a try, which ends with life at the latest, unless one runs or it is
// too early. Its error says what there is to wait for, as a *health.Pending or a
// *health.Problem: it is never nil.
func (p *Puller) Start(life context.Context, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	pending := &health.Pending{Reason: "getting the k3s image " + p.ref.String()}
	switch {
	case p.running && p.total > 0:
		pending.Detail = fmt.Sprintf("%d of %d MB", p.done>>20, p.total>>20)
		return pending
	case p.running:
		return pending
	case now.Before(p.next):
		return &health.Problem{Code: health.CodeImage, Err: fmt.Errorf("get the k3s image: %w", p.err),
			Detail: "next try in " + p.next.Sub(now).Round(time.Second).String(),
			Hint:   "check the network and k3s.image; a mirror goes into /etc/containerd/certs.d, a layout on disk is written oci:/path, and `image os --with-images` puts k3s into the OS"}
	}
	ctx, cancel := context.WithTimeout(life, pullLimit)
	p.running, p.cancel, p.done, p.total, p.hurried, p.found = true, cancel, 0, 0, false, false
	p.wg.Go(func() {
		defer cancel()
		p.try(ctx)
	})
	return pending
}

func (p *Puller) try(ctx context.Context) {
	err := p.pull(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = false
	if !p.hurried || err == nil { // else it was not its fault
		p.err = err
		p.fails++
		if err == nil {
			p.fails = 0
		}
		p.next = time.Now().Add(role.PauseAfter(p.fails))
	}
	p.Notify()
}

// hurry tells that a member has the image by now. A try that has not brought
// anything yet is given up for another one: it may be waiting for a registry that
// does not exist, for minutes.
func (p *Puller) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = time.Time{}
	if p.running && p.done == 0 && !p.found {
		p.hurried = true
		p.cancel()
		return
	}
	p.Notify()
}

func (p *Puller) pull(ctx context.Context) error {
	mirrors, err := oci.Mirrors(p.hosts, p.ref.Registry())
	if err != nil {
		return err
	}
	opts := oci.Options{Baked: p.baked, Mirrors: mirrors, Progress: p.progress}
	if p.members != nil {
		opts.Members = p.members(p.atMembers)
	}
	return p.runtime.ImportImage(ctx, p.ref.String(), func(ctx context.Context, s k3s.Store) (api.Blob, error) {
		img, err := oci.Pull(ctx, p.ref, contentStore{s}, opts)
		return img.Blob, err
	})
}

// atMembers notes that members have the image.
func (p *Puller) atMembers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found = true
}

func (p *Puller) progress(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

// Wait returns when no try runs any more.
func (p *Puller) Wait() { p.wg.Wait() }

// contentStore lets package oci write into containerd.
type contentStore struct{ s k3s.Store }

// Has implements oci.Store.
func (c contentStore) Has(ctx context.Context, b api.Blob) (bool, error) {
	return c.s.Has(ctx, b)
}

// Write implements oci.Store. What arrived before an error is gone on from, unless
// it is known to be wrong.
func (c contentStore) Write(ctx context.Context, b api.Blob, r io.Reader) error {
	err := c.s.Write(ctx, b, r)
	if errors.Is(err, oci.ErrDigest) {
		err = errors.Join(err, c.s.Discard(ctx, b))
	}
	return err
}
