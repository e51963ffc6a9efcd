package upgrade

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"

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
var described = regexp.MustCompile(`^(v\d+|v?\d+\.\d+(?:\.\d+)?)(?:-([0-9A-Za-z.-]+?))??(?:-(\d+)-g[0-9a-f]+)?(?:-dirty)?(?:\+.*)?$`)

// parsed is a version that has an order: that of semantic versions
// (https://semver.org), and after each of them the commits since.
type parsed struct {
	version string // as package semver takes it
	commits int
}

func parseVersion(s string) (parsed, bool) {
	m := described.FindStringSubmatch(s)
	if m == nil {
		return parsed{}, false
	}
	p := parsed{version: semver.Canonical("v" + plain(strings.TrimPrefix(m[1], "v")))}
	if m[2] != "" {
		p.version += "-" + plain(m[2])
	}
	if m[3] != "" {
		var err error
		if p.commits, err = strconv.Atoi(m[3]); err != nil {
			return parsed{}, false
		}
	}
	return p, semver.IsValid(p.version)
}

// plain takes the zeros off that numbers begin with: dates are written so (2026.01.1), and
// semantic versions have none.
func plain(s string) string {
	parts := strings.Split(s, ".")
	for i, part := range parts {
		if n := strings.TrimLeft(part, "0"); n != part && strings.Trim(part, "0123456789") == "" {
			parts[i] = cmp.Or(n, "0")
		}
	}
	return strings.Join(parts, ".")
}

func (p parsed) compare(q parsed) int {
	return cmp.Or(semver.Compare(p.version, q.version), cmp.Compare(p.commits, q.commits))
}
