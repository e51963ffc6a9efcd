package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNoBlock is returned, wrapped, when no file has a kairos block.
var ErrNoBlock = errors.New("no kairos block")

// Origin is where a value stands.
type Origin struct {
	File string
	Line int // from 1; 0 for the file as a whole
}

// String returns file:line, or the file alone.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.File
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// Origins says where each value came from, by its dotted key ("kairos.overlay.mtu").
// Keys with default values are not in it.
type Origins map[string]Origin

// Problem is one thing wrong with a file. It never quotes a secret.
type Problem struct {
	Origin
	Key     string // dotted; "" for the file as a whole
	Reason  string
	Suggest string // what was probably meant; may be empty
}

// Error implements error: "file:line: key: reason; did you mean X?".
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Origin.String())
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Reason)
	if p.Suggest != "" {
		b.WriteString("; did you mean " + p.Suggest + "?")
	}
	return b.String()
}

// Problems is everything wrong with a configuration, in the order of the files.
type Problems []Problem

// Error implements error: one problem per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Below returns a line for each problem, with files named as the machine whose file
// system begins at root names them.
func (ps Problems) Below(root string) []string {
	var out []string
	for _, p := range ps {
		if rel, err := filepath.Rel(root, p.File); err == nil && filepath.IsLocal(rel) {
			p.File = "/" + rel
		}
		out = append(out, p.Error())
	}
	return out
}

// sorted orders problems by line within each file and keeps the files' order.
func (ps Problems) sorted(files []string) Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if c := cmp.Compare(slices.Index(files, a.File), slices.Index(files, b.File)); c != 0 {
			return c
		}
		return cmp.Compare(a.Line, b.Line)
	})
	return ps
}

// nearest returns the candidate that is a few typing errors away from word, or "".
func nearest(word string, candidates []string) string {
	best, limit := "", max(1, min(3, len(word)/3))
	for _, c := range candidates {
		if d := distance(fold(word), fold(c)); d <= limit {
			best, limit = c, d-1
		}
	}
	return best
}

// fold ignores what people vary without meaning anything by it.
func fold(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "-", "_")
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours between two words (optimal string alignment).
func distance(a, b string) int {
	prev2, prev := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}

// shorten keeps messages readable whatever stands in the file.
func shorten(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "..."
	}
	return s
}
