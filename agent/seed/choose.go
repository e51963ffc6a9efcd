package seed

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Member is another node of this network_id that can be reached.
type Member struct {
	ID     identity.ID
	Name   string
	Server bool          // it runs the control plane of this machine's own cluster
	RTT    time.Duration // 0: not known
	Tag    string        // of its index; empty: it has nothing
}

// claim is one member's word on an image.
type claim struct {
	by Member
	Image
}

// choose decides what a name stands for, by the rule in the package's comment. All
// claims are about one name.
func choose(claims []claim) (Image, error) {
	if len(claims) == 0 {
		return Image{}, ErrNobody
	}
	keep := func(list []claim, f func(claim) bool) []claim {
		return slices.DeleteFunc(slices.Clone(list), func(c claim) bool { return !f(c) })
	}
	counted := claims
	if baked := keep(claims, func(c claim) bool { return c.Baked }); len(baked) > 0 {
		counted = baked
	}
	servers := keep(counted, func(c claim) bool { return c.by.Server })
	for _, voters := range [][]claim{counted, servers} {
		if len(voters) > 0 && agree(voters) {
			return voters[0].Image, nil
		}
	}
	return Image{}, fmt.Errorf("%w %s: %s", ErrDisagree, claims[0].Name, words(counted))
}

func agree(claims []claim) bool {
	return !slices.ContainsFunc(claims, func(c claim) bool { return c.Digest != claims[0].Digest })
}

// words says who says what, for a person; of many the first few.
func words(claims []claim) string {
	claims = slices.Clone(claims)
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(strings.Compare(a.Digest, b.Digest), strings.Compare(a.by.Name, b.by.Name))
	})
	var out []string
	last := ""
	for _, c := range claims {
		if c.Digest != last && len(out) < 4 {
			out = append(out, fmt.Sprintf("%s has %.19s", c.by.Name, c.Digest))
		}
		last = c.Digest
	}
	return strings.Join(out, ", ")
}

// near: a member this much farther away than the nearest one is at another site.
const near = 5 * time.Millisecond

// order puts members in the order in which they are asked for a blob: those of
// one's own site first, and among these another one for each machine and blob, so
// that a site that starts at once spreads over all who have it. shaky ones come last.
func order(self identity.ID, digest string, members []Member, shaky func(identity.ID) bool) []Member {
	if len(members) == 0 {
		return nil
	}
	nearest := time.Duration(0)
	for _, m := range members {
		if m.RTT > 0 && (nearest == 0 || m.RTT < nearest) {
			nearest = m.RTT
		}
	}
	type ranked struct {
		Member
		class int
		hash  uint64
	}
	var list []ranked
	for _, m := range members {
		r := ranked{Member: m, hash: weight(self, m.ID, digest)}
		if m.RTT > 2*nearest+near {
			r.class = 1
		}
		if shaky(m.ID) {
			r.class += 2
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b ranked) int { return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.hash, b.hash)) })
	out := make([]Member, len(list))
	for i, r := range list {
		out[i] = r.Member
	}
	return out
}

// weight ranks a member for one machine and blob (rendezvous hashing).
func weight(self, member identity.ID, digest string) uint64 {
	h := fnv.New128a()
	_, _ = h.Write(self[:])
	_, _ = h.Write(member[:])
	_, _ = h.Write([]byte(digest)) // a hash never fails
	return binary.BigEndian.Uint64(h.Sum(nil))
}
