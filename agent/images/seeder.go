package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/broadcast"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/seed"
)

// seedingPause is how often the images are looked at when nothing has changed:
// somebody may have removed one.
const seedingPause = 10 * time.Minute

// Limits of what is copied from members: bytes of all images together, and the
// part of the disk that stays free. At 5 per cent k3s begins to evict pods.
const (
	maxCopied = 32 << 30
	keepFree  = 6 // per cent
	unpacked  = 3 // an image takes about so many times its size: its blobs, and unpacked
)

// Seeder brings images to containerd that pods can be started from without a
// registry: those of this machine's OS, then those of members. It also knows
// what this machine can give away. It is safe for concurrent use, and an Event: it
// tells of another tag or problem.
type Seeder struct {
	broadcast.Event

	baked  string // layout
	images PodImages
	puller *Puller
	client *seed.Client
	server *seed.Server
	disk   func() (free, size uint64, err error) // of containerd, bytes
	limit  int64                                 // of what is copied, bytes
	file   string                                // of origins
	log    *slog.Logger

	// Of run's goroutine.
	own      []oci.Named     // of the OS
	read     bool            // own is known
	imported []k3s.PodImage  // found in containerd last
	index    seed.Index      // of all that is here, as it was put out last
	origins  origins         // of the copies here
	foreign  map[string]bool // names that were told to be somebody else's
	hurried  string          // what members had when the puller was told of it

	mu      sync.Mutex
	shelf   map[string]spot // by digest
	tag     string          // of the newest index
	indexes []published     // the newest one first
	problem error
}

// SeederOptions of NewSeeder. All are required but Places and Log.
type SeederOptions struct {
	Places
	Images PodImages
	Puller *Puller      // of k3s' image, which is seeded too
	Client *seed.Client // asks members
	// Disk measures containerd's, in bytes; see DiskOf.
	Disk func() (free, size uint64, err error)
	// Dir is where it is kept whose OS brought what was copied.
	Dir string
	Log *slog.Logger
}

// NewSeeder returns one that has not looked at anything yet, and lets the Puller
// ask members.
func NewSeeder(o SeederOptions) *Seeder {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Seeder{baked: o.orDefault().Baked, images: o.Images, puller: o.Puller, client: o.Client, disk: o.Disk, log: o.Log,
		limit: maxCopied, file: filepath.Join(o.Dir, originsFile), foreign: map[string]bool{}}
	var err error
	if s.origins, err = readOrigins(s.file); err != nil {
		s.log.Warn("it is not known whose OS brought the images that were copied", "err", err)
	}
	s.server = seed.NewServer(s)
	o.Puller.members = func(found func()) oci.Place { return &membersPlace{client: s.client, found: found} }
	return s
}

// State returns the tag to announce and what is wrong.
func (s *Seeder) State() (tag string, problem error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tag, s.problem
}

// Run goes on until ctx ends: a turn whenever members announce other images, of
// which mesh tells, the k3s image has come, or a failed turn is to be tried again.
func (s *Seeder) Run(ctx context.Context, mesh Changes) error {
	fails := 0
	for ctx.Err() == nil {
		offered, pulled := s.offered(), s.puller.Changed()
		tctx, cancel := context.WithTimeout(ctx, pullLimit)
		err := s.turn(tctx)
		cancel()
		if ctx.Err() != nil {
			break
		}
		s.tell(err)
		wait := seedingPause
		if d, ok := s.client.Missing(); ok {
			wait = max(d, time.Second)
		}
		if fails++; err == nil {
			fails = 0
		} else {
			wait = min(wait, role.PauseAfter(fails))
		}
		s.waitForNews(ctx, wait, func() <-chan struct{} {
			if s.offered() != offered {
				return nil
			}
			return mesh.Changed()
		}, pulled)
	}
	return nil
}

// waitForNews returns after d, when pulled is closed, or when changed returns nil;
// it is called again whenever the channel that it gave is closed.
func (s *Seeder) waitForNews(ctx context.Context, d time.Duration, changed func() <-chan struct{}, pulled <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		next := changed()
		if next == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-pulled:
			return
		case <-next:
		}
	}
}

// offered is all that members announce.
func (s *Seeder) offered() string {
	_, members := s.client.Members()
	tags := map[string]bool{}
	for _, m := range members {
		tags[m.Tag] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(tags)), " ")
}

// turn brings what is missing, and lets go of what no OS brings any more: that becomes
// an ordinary image, which the kubelet removes once no pod uses it and space is short.
func (s *Seeder) turn(ctx context.Context) error {
	own, errOwn := s.readOwn(ctx)
	if err := s.refresh(ctx); err != nil {
		return errors.Join(errOwn, err)
	}
	errs := []error{errOwn}
	for _, img := range own {
		if !s.isK3s(img) {
			errs = append(errs, s.bring(ctx, k3s.PodImage{Name: img.Name, Baked: true, Blob: img.Blob}, oci.Options{Baked: s.baked}))
		}
	}
	errs = append(errs, s.releaseOld(ctx, own))
	if err := s.refresh(ctx); err != nil {
		return errors.Join(append(errs, err)...)
	}
	// k3s' own image comes first: nothing runs without it.
	if has, err := s.puller.Has(ctx); err != nil || !has {
		s.hurryPuller(ctx)
		return errors.Join(errs...)
	}
	over, err := s.copyFromMembers(ctx)
	errs = append(errs, err, s.refresh(ctx))
	return errors.Join(append(errs, s.releaseCopies(ctx, over), s.refresh(ctx))...)
}

// hurryPuller tells the puller, once for each change of what members have, that
// they have the k3s image.
func (s *Seeder) hurryPuller(ctx context.Context) {
	offered := s.offered()
	if offered == s.hurried {
		return
	}
	if _, err := s.client.Find(ctx, s.puller.ref.Name(), s.puller.ref.Digest()); err == nil {
		s.hurried = offered
		s.puller.hurry()
	}
}

func (s *Seeder) readOwn(ctx context.Context) ([]oci.Named, error) {
	if s.read {
		return s.own, nil
	}
	list, err := oci.ReadLayout(ctx, s.baked, goruntime.GOARCH)
	s.own, s.read = list, err == nil
	return list, err
}

// isK3s reports whether an image of the OS is the one that k3s runs from.
func (s *Seeder) isK3s(img oci.Named) bool {
	if d := s.puller.ref.Digest(); d != "" {
		return img.Digest == d || img.Manifest.Digest == d
	}
	return img.Name == s.puller.ref.Name()
}

// bring imports one image unless it is here; a failure says which.
func (s *Seeder) bring(ctx context.Context, img k3s.PodImage, opts oci.Options) error {
	here := func(x k3s.PodImage) bool { return x.Name == img.Name && x.Digest == img.Digest && x.Baked == img.Baked }
	if slices.ContainsFunc(s.imported, here) || s.foreign[img.Name] {
		return nil
	}
	ref, err := oci.DigestRef(img.Digest)
	if err != nil {
		return fmt.Errorf("%s: %w", img.Name, err)
	}
	err = s.images.ImportPodImage(ctx, img, func(ctx context.Context, st k3s.Store) (api.Blob, error) {
		got, err := oci.Pull(ctx, ref, contentStore{st}, opts)
		return got.Blob, err
	})
	switch {
	case errors.Is(err, k3s.ErrForeign):
		s.foreign[img.Name] = true
		s.log.Info("an image that came with the network is not used: there is one of this name", "image", img.Name, "digest", img.Digest)
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", img.Name, err)
	}
	s.log.Info("an image for pods is here", "image", img.Name, "digest", img.Digest, "baked", img.Baked)
	return nil
}

// releaseOld lets go of what this machine's OS does not bring any more.
func (s *Seeder) releaseOld(ctx context.Context, own []oci.Named) error {
	if !s.read {
		return nil // it is not known what the OS brings
	}
	var errs []error
	for _, img := range s.imported {
		if img.Baked && !slices.ContainsFunc(own, func(n oci.Named) bool { return n.Name == img.Name }) {
			errs = append(errs, s.images.ReleasePodImage(ctx, img))
			s.log.Info("an image is not part of the OS any more", "image", img.Name, "digest", img.Digest)
		}
	}
	return errors.Join(errs...)
}

// copyFromMembers gets what members have and this machine lacks. What its own OS
// brings under a name counts more than what members say. over is what does not fit
// beside the rest.
func (s *Seeder) copyFromMembers(ctx context.Context) (over []seed.Image, err error) {
	offers, err := s.client.Offers(ctx, s.index)
	errs := []error{err}
	taken, over := seed.Fit(offers, s.limit)
	for _, img := range over {
		if img.Baked {
			errs = append(errs, fmt.Errorf("%s: more than %d GB of images are offered", img.Name, s.limit>>30))
		}
	}
	for _, img := range taken {
		baked := func(x k3s.PodImage) bool { return x.Name == img.Name && (x.Baked || x.Digest == img.Digest) }
		if slices.ContainsFunc(s.imported, baked) {
			continue
		}
		if err := s.room(img.Total); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", img.Name, err))
			continue
		}
		place := &membersPlace{client: s.client, found: func() {}}
		err := s.bring(ctx, k3s.PodImage{Name: img.Name, Blob: api.Blob{Digest: img.Digest}}, oci.Options{Members: place})
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return over, errors.Join(errs...)
}

// releaseCopies lets go of copies that no OS brings any more, and of those that there
// is no room for beside what one brings. Of the others it notes who does.
func (s *Seeder) releaseCopies(ctx context.Context, over []seed.Image) error {
	var errs []error
	next := origins{}
	for _, img := range s.imported {
		if img.Baked {
			continue
		}
		copied := seed.Image{Name: img.Name, Digest: img.Digest, By: s.origins.of(img)}
		fate, by := s.client.Fate(s.index, copied)
		left := slices.ContainsFunc(over, func(o seed.Image) bool { return o.Name == img.Name && o.Digest == img.Digest })
		if fate != seed.Gone && !(left && fate == seed.Orphaned) {
			next[img.Name] = origin{img.Digest, by}
			continue
		}
		errs = append(errs, s.images.ReleasePodImage(ctx, img))
		s.log.Info("no OS of the network brings an image any more", "image", img.Name, "digest", img.Digest)
	}
	return errors.Join(append(errs, s.keepOrigins(next))...)
}

// room refuses an image that would fill the disk: the kubelet would begin to evict pods.
func (s *Seeder) room(size int64) error {
	free, all, err := s.disk()
	if err != nil {
		return fmt.Errorf("look at the free disk space: %w", err)
	}
	if need := uint64(size)*unpacked + all/100*keepFree; free < need {
		return fmt.Errorf("%d MB of free disk space are too few, it takes %d MB", free>>20, need>>20)
	}
	return nil
}

// tell keeps what went wrong for the conditions.
func (s *Seeder) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (err == nil) == (s.problem == nil) && (err == nil || err.Error() == s.problem.Error()) {
		return
	}
	s.problem = err
	s.Notify()
}
