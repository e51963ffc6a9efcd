package upgrade

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kairos-io/kairos/image/slots"
)

// Age is what tells which of two releases is the older one.
type Age struct {
	Version string    // "v1.2.3", or what git describe says; others have no order
	Created time.Time // of the release; zero in those that were made before it was told
}

// Before reports whether a is older than b, as far as the two can be compared.
// Versions count more than dates, because a fix for an old line is the younger
// release. A release without a date is older than one that has it.
func (a Age) Before(b Age) bool {
	if av, ok := parseVersion(a.Version); ok {
		if bv, ok := parseVersion(b.Version); ok {
			if c := av.compare(bv); c != 0 {
				return c < 0
			}
		}
	}
	return a.Created.Before(b.Created)
}

// OlderThanRuns reports whether the offer is older than the running system. A
// registry, or who sits on the line to it, can serve a release for ever that was
// signed once and has known holes by now.
func (o *Offer) OlderThanRuns(st slots.Status) bool {
	r := st.Booted.Record
	return r != nil && Age{o.Config.Version, o.Config.Created}.Before(Age{r.Version, r.Created})
}

// described is a version with what git describe adds: the commits since the tag
// and the last one's name. A bare number is none: it is what a commit may be called.
var described = regexp.MustCompile(`^(v\d+|\d+\.\d+|v\d+\.\d+|v?\d+\.\d+\.\d+)(?:-([0-9A-Za-z.-]+?))??(?:-(\d+)-g[0-9a-f]+)?(?:-dirty)?(?:\+.*)?$`)

// parsed is a version that has an order: that of semantic versions
// (https://semver.org), and after each of them the commits since.
type parsed struct {
	numbers [3]uint64
	pre     []string
	commits uint64
}

func parseVersion(s string) (parsed, bool) {
	m := described.FindStringSubmatch(s)
	if m == nil {
		return parsed{}, false
	}
	var p parsed
	for i, n := range strings.Split(strings.TrimPrefix(m[1], "v"), ".") {
		var err error
		if p.numbers[i], err = strconv.ParseUint(n, 10, 64); err != nil {
			return parsed{}, false
		}
	}
	if m[2] != "" {
		p.pre = strings.Split(m[2], ".")
	}
	if m[3] != "" {
		var err error
		if p.commits, err = strconv.ParseUint(m[3], 10, 64); err != nil {
			return parsed{}, false
		}
	}
	return p, true
}

func (p parsed) compare(q parsed) int {
	for i := range p.numbers {
		if c := cmp.Compare(p.numbers[i], q.numbers[i]); c != 0 {
			return c
		}
	}
	return cmp.Or(comparePre(p.pre, q.pre), cmp.Compare(p.commits, q.commits))
}

// comparePre compares what stands behind the numbers: nothing comes last.
func comparePre(a, b []string) int {
	if len(a) == 0 || len(b) == 0 {
		return cmp.Compare(len(b), len(a))
	}
	for i := range min(len(a), len(b)) {
		x, xerr := strconv.ParseUint(a[i], 10, 64)
		y, yerr := strconv.ParseUint(b[i], 10, 64)
		c := 0
		switch {
		case xerr == nil && yerr == nil:
			c = cmp.Compare(x, y)
		case xerr == nil:
			c = -1
		case yerr == nil:
			c = 1
		default:
			c = strings.Compare(a[i], b[i])
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}
