package seed

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

// What becomes of a copy, by who is known to have brought it and what those say now.
func TestFate(t *testing.T) {
	img := testImage("r/app:1", digest("1"))
	baked, other := img, testImage("r/app:1", digest("2"))
	baked.Baked, other.Baked = true, true
	brings, dropped := Index{[]Image{baked}, true}, Index{[]Image{other}, true}
	for _, tt := range []struct {
		name string
		by   []identity.ID
		say  map[identity.ID]Index
		want Fate
	}{
		{"somebody brings it", []identity.ID{id(1)}, map[identity.ID]Index{id(1): brings}, Living},
		{"of an earlier version", nil, map[identity.ID]Index{id(1): {Images: []Image{baked}}}, Living},
		{"somebody else by now", []identity.ID{id(1)}, map[identity.ID]Index{id(1): dropped, id(2): brings}, Living},
		{"another one under its name", []identity.ID{id(1)}, map[identity.ID]Index{id(1): dropped}, Gone},
		{"all of two dropped it", []identity.ID{id(1), id(2)}, map[identity.ID]Index{id(1): dropped, id(2): {Complete: true}}, Gone},
		{"one of two is away", []identity.ID{id(1), id(2)}, map[identity.ID]Index{id(1): dropped}, Orphaned},
		{"it is away", []identity.ID{id(1)}, nil, Orphaned},
		{"it does not know yet what its OS brings", []identity.ID{id(1)}, map[identity.ID]Index{id(1): {}}, Orphaned},
		{"nobody knows who brought it", nil, map[identity.ID]Index{id(1): dropped}, Orphaned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			copied := img
			copied.By = tt.by
			if got := declared(tt.say).fate(copied); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// A copy that another member offers brings word of who had it, and is not offered
// once that one says that it is dropped.
func TestOffersWithoutWhatIsGone(t *testing.T) {
	copied := testImage("r/app:1", digest("1"))
	copied.By = []identity.ID{id(2)}
	s := &site{}
	s.add(t, "copier", copied)
	seedOf := s.add(t, "seed", testImage("r/else:1", digest("3")))
	c := s.client()
	names := func(own Index) string {
		t.Helper()
		offers, err := c.Offers(t.Context(), own)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, o := range offers {
			out = append(out, fmt.Sprintf("%s %v", o.Name, o.Baked))
		}
		return strings.Join(out, ", ")
	}
	if got := names(Index{}); got != "r/app:1 false, r/else:1 false" {
		t.Errorf("before it said all: %s", got)
	}
	seedOf.index.Complete = true
	_, seedOf.Tag, _ = seedOf.index.Encode()
	if got := names(Index{}); got != "r/else:1 false" {
		t.Errorf("dropped: %s", got)
	}
	if fate, by := c.Fate(Index{}, testImage("r/app:1", digest("1"))); fate != Gone || !slices.Equal(by, []identity.ID{id(2)}) {
		t.Errorf("the copy here: %v by %v", fate, by)
	}
	own := testImage("r/app:1", digest("1"))
	own.Baked = true
	if got := names(Index{Images: []Image{own}, Complete: true}); got != "r/app:1 true, r/else:1 false" {
		t.Errorf("this machine's own OS brings it: %s", got)
	}
}

// What is left over of earlier images never keeps one out that an OS brings.
func TestFit(t *testing.T) {
	offer := func(name string, total int64, baked bool) Image {
		return Image{Name: name, Total: total, Baked: baked}
	}
	names := func(list []Image) string {
		var out []string
		for _, i := range list {
			out = append(out, i.Name)
		}
		return strings.Join(out, " ")
	}
	for _, tt := range []struct {
		name        string
		offers      []Image
		taken, over string
	}{
		{"all fit", []Image{offer("a", 50, false), offer("b", 50, true)}, "b a", ""},
		{"an old one before a new one", []Image{offer("a", 60, false), offer("z", 60, true)}, "z", "a"},
		{"a small one beside a large one", []Image{offer("a", 200, true), offer("b", 50, true)}, "b", "a"},
		{"nothing", nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			taken, over := Fit(tt.offers, 100)
			if names(taken) != tt.taken || names(over) != tt.over {
				t.Errorf("got %q and %q, want %q and %q", names(taken), names(over), tt.taken, tt.over)
			}
		})
	}
}
