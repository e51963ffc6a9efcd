package seed

import (
	"cmp"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Fate is what becomes of an image.
type Fate uint8

// The fates.
const (
	Orphaned Fate = iota // whoever's OS brought it is away, or not known: it stays while there is room
	Living               // somebody's OS brings it
	Gone                 // whoever brought it says that it does not any more
)

// declared is what members that can be asked now, and this machine, say of their own OS.
type declared map[identity.ID]Index

// bakers are those whose OS brings an image now.
func (w declared) bakers(img Image) []identity.ID {
	var out []identity.ID
	for id, x := range w {
		if x.bakes(img) {
			out = append(out, id)
		}
	}
	return few(out)
}

// fate decides about an image that was last known to be brought by img.By.
func (w declared) fate(img Image) Fate {
	if len(w.bakers(img)) > 0 {
		return Living
	}
	silent := func(id identity.ID) bool { return !w[id].Complete }
	if len(img.By) == 0 || slices.ContainsFunc(img.By, silent) {
		return Orphaned
	}
	return Gone
}

// few sorts IDs, and keeps as many as are remembered.
func few(ids []identity.ID) []identity.ID {
	slices.SortFunc(ids, identity.ID.Compare)
	ids = slices.Compact(ids)
	return ids[:min(len(ids), maxBakers)]
}

// declared is the word of the members and of this machine, whose own index is own.
func (c *Client) declared(own Index) declared {
	self, members := c.Members()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := declared{self: own}
	for _, m := range members {
		if x, ok := c.known[m.Tag]; ok && m.Tag != "" {
			out[m.ID] = x
		}
	}
	return out
}

// Fate returns what becomes of a copy that this machine has, and who has it from its
// OS as far as is known: the ones to remember with it. own is this machine's index.
func (c *Client) Fate(own Index, img Image) (Fate, []identity.ID) {
	w := c.declared(own)
	for _, cl := range c.claims(func(i Image) bool { return i.Name == img.Name && i.Digest == img.Digest && i.Use == ForPods }) {
		img.By = append(slices.Clone(img.By), cl.By...)
	}
	img.By = few(slices.Clone(img.By))
	if now := w.bakers(img); len(now) > 0 {
		return Living, now
	}
	return w.fate(img), img.By
}

// living drops the claims on images that are gone, by what all of them know.
func (w declared) living(claims []claim) []claim {
	by := map[string][]identity.ID{} // by digest
	for _, cl := range claims {
		by[cl.Digest] = append(by[cl.Digest], cl.By...)
	}
	return slices.DeleteFunc(claims, func(cl claim) bool {
		cl.By = by[cl.Digest]
		return w.fate(cl.Image) == Gone
	})
}

// Fit parts offers at a limit in bytes: those that somebody's OS brings come first, so
// that what is left over of earlier ones never keeps a new one out.
func Fit(offers []Image, limit int64) (taken, over []Image) {
	rank := func(i Image) int {
		if i.Baked {
			return 0
		}
		return 1
	}
	offers = slices.Clone(offers)
	slices.SortFunc(offers, func(a, b Image) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Name, b.Name)) })
	for _, img := range offers {
		if img.Total > limit {
			over = append(over, img)
			continue
		}
		limit -= img.Total
		taken = append(taken, img)
	}
	return taken, over
}
