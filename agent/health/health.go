// Package health holds the named conditions of a node: what a person should
// know, why, and what to do about it. It is pure; time is an argument.
package health

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Severity tells how much a condition matters.
type Severity string

// The severities, from the mildest.
const (
	Info    Severity = "info"    // normal, such as waiting for another machine
	Warning Severity = "warning" // works, and something should be done
	Error   Severity = "error"   // does not work until something is done
)

var rank = map[Severity]int{Info: 0, Warning: 1, Error: 2}

// Codes of the conditions that the agent raises. A code is stable: people
// search for it and programs match it.
const (
	CodeWaiting        = "Waiting"           // something normal has not happened yet
	CodeOverlayDown    = "OverlayDown"       // the overlay daemon does not answer
	CodeStateUnusable  = "StateUnusable"     // the state file cannot be read; it is not taken for empty
	CodeNeedsOperator  = "NeedsOperator"     // going on could destroy or fork a cluster; a person must decide
	CodeConflict       = "Conflict"          // two clusters claim one network_id
	CodeRoleNotGranted = "RoleNotGranted"    // the configured role cannot be had
	CodeServerLost     = "ServerLost"        // the cluster's server is not reachable
	CodeNetworkChanged = "NetworkChanged"    // network_id differs from the one this node belongs to
	CodeConfig         = "ConfigRefused"     // the files are refused; the last good configuration goes on
	CodeImage          = "ImageUnavail"      // the k3s image cannot be had
	CodeVersion        = "KubernetesVersion" // k3s that is wanted does not fit the cluster's data, or its servers
	CodePodImages      = "PodImages"         // images that came with the network are missing
	CodeK3sFailing     = "K3sFailing"        // k3s does not stay up, or does not answer
	CodePodNetwork     = "PodNetworkError"   // the pod network could not be applied
)

// Condition is one named thing a person should know. It never holds a secret.
type Condition struct {
	Code     string
	Severity Severity
	Text     string    // one line: what is the matter
	Hint     string    // what to do next; may be empty
	Since    time.Time // when it was first raised without a break; set by Set
}

// Set is the conditions that hold now. The zero Set is empty and usable. It is
// not safe for concurrent use.
type Set struct{ byCode map[string]Condition }

// Raise adds c, or replaces the condition of the same code, and reports
// whether anything but the time changed. Since stays that of the first Raise
// as long as the condition was not cleared in between.
func (s *Set) Raise(c Condition, now time.Time) bool {
	if s.byCode == nil {
		s.byCode = map[string]Condition{}
	}
	old, had := s.byCode[c.Code]
	c.Since = now
	if had {
		c.Since = old.Since
	}
	s.byCode[c.Code] = c
	return !had || old != c
}

// Clear removes the condition with this code and reports whether it was there.
func (s *Set) Clear(code string) bool {
	_, had := s.byCode[code]
	delete(s.byCode, code)
	return had
}

// Replace makes the set hold exactly these conditions and reports whether
// anything but the time changed: the level-triggered form for a loop that
// computes all conditions in every turn. The first of two with one code wins:
// what comes first is nearer to the cause.
func (s *Set) Replace(now time.Time, conditions ...Condition) bool {
	first := map[string]Condition{}
	for _, c := range conditions {
		if _, twice := first[c.Code]; !twice {
			first[c.Code] = c
		}
	}
	changed := false
	for code := range maps.Clone(s.byCode) {
		if _, keep := first[code]; !keep {
			changed = s.Clear(code) || changed
		}
	}
	for _, c := range first {
		changed = s.Raise(c, now) || changed
	}
	return changed
}

// List returns the conditions, gravest first, then by code.
func (s *Set) List() []Condition {
	return slices.SortedFunc(maps.Values(s.byCode), func(a, b Condition) int {
		if c := cmp.Compare(rank[b.Severity], rank[a.Severity]); c != 0 {
			return c
		}
		return cmp.Compare(a.Code, b.Code)
	})
}

// Worst returns the gravest severity, Info for an empty set.
func (s *Set) Worst() Severity {
	worst := Info
	for _, c := range s.byCode {
		if rank[c.Severity] > rank[worst] {
			worst = c.Severity
		}
	}
	return worst
}
