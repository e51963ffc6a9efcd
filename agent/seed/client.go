package seed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Peers opens a path of another agent, from a byte on; *peer.Peer implements it.
type Peers interface {
	Get(ctx context.Context, from identity.ID, path string, offset int64) (io.ReadCloser, error)
}

// Options of NewClient. Peers, Members and Arch are required.
type Options struct {
	Peers Peers
	// Members returns this machine's ID and the other nodes that can be asked now.
	Members func() (self identity.ID, others []Member)
	Arch    string // GOARCH of the images wanted
	Now     func() time.Time
	Stall   time.Duration // without progress, after which another member is asked; 0: 15 s
	Log     *slog.Logger
}

// Client gets images from members. It is safe for concurrent use.
type Client struct {
	Options
	pace *rate.Limiter

	mu      sync.Mutex
	known   map[string]Index // by tag
	resting map[identity.ID]rest
	liars   map[grudge]time.Time
	shaky   map[grudge]time.Time
	last    map[string]*transfer // by digest: the last one that ended
}

// rest is granted to a member that failed to give its index.
type rest struct {
	until time.Time
	last  time.Duration
}

// grudge is held against a member because of one blob.
type grudge struct {
	by     identity.ID
	digest string
}

// NewClient returns a client that has asked nobody yet.
func NewClient(o Options) *Client {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Stall <= 0 {
		o.Stall = stallTime
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{Options: o, pace: rate.NewLimiter(askRate, askBurst), known: map[string]Index{}, resting: map[identity.ID]rest{},
		liars: map[grudge]time.Time{}, shaky: map[grudge]time.Time{}, last: map[string]*transfer{}}
}

// refresh gets the indexes whose tags are new. Who does not answer is passed over
// and asked again later.
func (c *Client) refresh(ctx context.Context) {
	self, members := c.Members()
	byTag := map[string][]Member{}
	for _, m := range members {
		if m.Tag != "" {
			byTag[m.Tag] = append(byTag[m.Tag], m)
		}
	}
	c.mu.Lock()
	for tag := range c.known {
		if byTag[tag] == nil {
			delete(c.known, tag)
		} else {
			delete(byTag, tag)
		}
	}
	c.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(4)
	for tag, holders := range byTag {
		g.Go(func() error {
			c.fetchIndex(ctx, tag, order(self, tag, holders, c.rests))
			return nil
		})
	}
	_ = g.Wait() // no call fails
}

// rests reports whether a member failed a short while ago.
func (c *Client) rests(id identity.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Now().Before(c.resting[id].until)
}

// Missing returns how long to wait before what members announce and what is not
// known of it is worth another look; ok is false when all is known.
func (c *Client) Missing() (wait time.Duration, ok bool) {
	_, members := c.Members()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range members {
		if _, known := c.known[m.Tag]; known || m.Tag == "" {
			continue
		}
		if d := max(0, c.resting[m.ID].until.Sub(c.Now())); !ok || d < wait {
			wait, ok = d, true
		}
	}
	return wait, ok
}

func (c *Client) fetchIndex(ctx context.Context, tag string, holders []Member) {
	for _, m := range holders[:min(len(holders), askTries)] {
		if c.rests(m.ID) || ctx.Err() != nil {
			continue
		}
		x, err := c.askIndex(ctx, m.ID, tag)
		c.mu.Lock()
		if err == nil {
			c.known[tag] = x
			delete(c.resting, m.ID)
			c.mu.Unlock()
			return
		}
		if len(c.resting) >= maxGrudges {
			clear(c.resting)
		}
		d := min(max(2*c.resting[m.ID].last, restTime), maxRest)
		c.resting[m.ID] = rest{c.Now().Add(d), d}
		c.mu.Unlock()
		c.Log.Debug("a member's images are not known", "peer", m.ID, "err", err)
	}
}

func (c *Client) askIndex(ctx context.Context, from identity.ID, tag string) (Index, error) {
	ctx, cancel := context.WithTimeout(ctx, indexTime)
	defer cancel()
	if err := c.pace.Wait(ctx); err != nil {
		return Index{}, err
	}
	body, err := c.Peers.Get(ctx, from, IndexPath+tag, 0)
	if err != nil {
		return Index{}, err
	}
	raw, err := io.ReadAll(io.LimitReader(body, maxIndex+1))
	if err := errors.Join(err, body.Close()); err != nil {
		return Index{}, fmt.Errorf("read an index: %w", err)
	}
	if tagOf(raw) != tag {
		return Index{}, errors.New("the index is not the one that was announced")
	}
	return parseIndex(raw)
}

// claims returns what members say about images of this platform for which want holds.
func (c *Client) claims(want func(Image) bool) []claim {
	_, members := c.Members()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []claim
	for _, m := range members {
		for _, img := range c.known[m.Tag].Images {
			if img.Arch == c.Arch && want(img) {
				out = append(out, claim{by: m, Image: img})
			}
		}
	}
	return out
}

// Find returns the image with this digest (of the image or of its manifest for
// this platform), or, without a digest, what the members' words make of the name.
// ErrNobody and ErrDisagree come wrapped.
func (c *Client) Find(ctx context.Context, name, digest string) (Image, error) {
	c.refresh(ctx)
	if digest == "" {
		return choose(c.claims(func(i Image) bool { return name != "" && i.Name == name }))
	}
	found := c.claims(func(i Image) bool { return i.Digest == digest || i.Manifest == digest })
	if len(found) == 0 {
		return Image{}, ErrNobody
	}
	img := found[0].Image
	if img.Digest != digest {
		img.Digest, img.Size = img.Manifest, img.ManifestSize
	}
	return img, nil
}

// Offers lists the images for pods that members have, one for each name, and the
// names on which they do not agree: the error wraps ErrDisagree for each. Baked says
// that somebody's OS brings it; what nobody's does any more is not offered. own is
// this machine's index.
func (c *Client) Offers(ctx context.Context, own Index) ([]Image, error) {
	c.refresh(ctx)
	w := c.declared(own)
	byName := map[string][]claim{}
	for _, cl := range c.claims(func(i Image) bool { return i.Use == ForPods && i.Name != "" }) {
		byName[cl.Name] = append(byName[cl.Name], cl)
	}
	var out []Image
	var errs []error
	for _, claims := range byName {
		if claims = w.living(claims); len(claims) == 0 {
			continue
		}
		img, err := choose(claims)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		img.Baked = len(w.bakers(img)) > 0
		out = append(out, img)
	}
	slices.SortFunc(out, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	if len(out) > maxImages {
		out = out[:maxImages]
	}
	return out, errors.Join(errs...)
}

// Piece is what is asked for of an image.
type Piece struct {
	Image  string // digest of the image or of its manifest: who has that has its pieces
	Digest string
	Size   int64
}

// Open returns the content of a blob from offset on, from one member after the
// other until one has given all of it. It is not verified. ErrNobody comes
// wrapped, and at the earliest with the first Read.
func (c *Client) Open(ctx context.Context, b Piece, offset int64) io.ReadCloser {
	self, _ := c.Members()
	var holders []Member
	seen := map[identity.ID]bool{}
	for _, cl := range c.claims(func(i Image) bool { return i.Digest == b.Image || i.Manifest == b.Image }) {
		if !seen[cl.by.ID] && !c.holds(c.liars, cl.by.ID, b.Digest) {
			holders = append(holders, cl.by)
		}
		seen[cl.by.ID] = true
	}
	shaky := func(id identity.ID) bool { return c.holds(c.shaky, id, b.Digest) }
	return &transfer{client: c, ctx: ctx, blob: b, at: offset, left: order(self, b.Digest, holders, shaky)}
}

func (c *Client) holds(grudges map[grudge]time.Time, id identity.ID, digest string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Now().Before(grudges[grudge{id, digest}])
}

func (c *Client) resent(grudges map[grudge]time.Time, g grudge, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(grudges) >= maxGrudges {
		clear(grudges)
	}
	grudges[g] = c.Now().Add(d)
}

// Blame tells that the last transfer of a blob brought something else. Who sent
// all of it lied; where several sent parts, nobody knows who did, and whoever
// broke off is asked last from now on. It reports whether there are others to ask.
func (c *Client) Blame(digest string) bool {
	c.mu.Lock()
	t := c.last[digest]
	delete(c.last, digest)
	c.mu.Unlock()
	if t == nil {
		return false
	}
	if len(t.gave) == 1 {
		c.Log.Warn("a member sent something else than was asked for", "peer", t.gave[0].ID, "digest", digest)
		c.resent(c.liars, grudge{t.gave[0].ID, digest}, liarTime)
	}
	return len(t.gave) > 1 || len(t.left) > 0
}

func (c *Client) ended(t *transfer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.last) >= maxGrudges {
		clear(c.last)
	}
	c.last[t.blob.Digest] = t
}
