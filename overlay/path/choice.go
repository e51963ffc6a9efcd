package path

import (
	"fmt"
	"time"
)

// A choice stands for so long where nothing but speed speaks against it, and a path
// that was lost is not preferred for its speed for so long.
const (
	holdFor   = 10 * time.Second
	steadyFor = 30 * time.Second
	// freshFor is how old news of a path may be that is to replace another one.
	freshFor = 2 * time.Second
)

// A path is faster if its round trip is shorter by a quarter and by fasterBy.
const fasterBy = 500 * time.Microsecond

// Why a path was chosen, or Stream was.
const (
	whyAnswered   = "udp probe answered"
	whyFaster     = "it is faster"
	whyDirect     = "it needs no relay"
	whySilent     = "the path before fell silent"
	whyNoPath     = "no udp connection"
	whyProbing    = "udp probe not answered yet"
	whyUnanswered = "udp probes are not answered"
	whyNarrow     = "packets of %d bytes do not get through"
	whyRefused    = "packets are refused: "
)

// Choose chooses among the paths, and reports whether another one is chosen than before.
//
// The first that holds decides: packets get through; it does not owe an answer while
// another was heard just now; it is direct; it is the one before; it is faster by far.
func (s *Set) Choose(now time.Duration) bool {
	current := s.byPath(s.chosen)
	best, why := s.better(current, now)
	switch {
	case best != nil:
		s.choose(best.Path, why, now)
		return true
	case current != nil && current.mtu > 0:
		s.look(current, now)
		return false
	}
	moved := s.chosen != Stream
	s.lost = s.lost || moved
	s.choose(Stream, s.whyNone(), now)
	return moved
}

func (s *Set) choose(p Path, why string, now time.Duration) {
	if s.why = why; s.chosen != p {
		s.chosen, s.changed = p, now
	}
}

// better returns the path that takes the place of the current one, if any does.
func (s *Set) better(current *entry, now time.Duration) (best *entry, why string) {
	for i := range s.entries {
		e := &s.entries[i]
		if e == current || e.mtu == 0 {
			continue
		}
		because := s.beats(e, current, now)
		if because == "" || best != nil && !preferred(e, best, now) {
			continue
		}
		best, why = e, because
	}
	return best, why
}

// beats says why e takes the place of the current path; "": it does not.
func (s *Set) beats(e, current *entry, now time.Duration) string {
	fresh := e.state(now) == Alive && now-e.last <= freshFor
	switch {
	case current == nil || current.mtu == 0:
		if s.chosen != Stream {
			return whySilent
		}
		return whyAnswered
	case !fresh:
		return ""
	case current.state(now) == Suspect && e.last >= current.since:
		return whySilent
	case now-s.changed < holdFor || e.fell > 0 && now-e.fell < steadyFor:
		return ""
	case e.Direct() && !current.Direct():
		return whyDirect
	case e.Direct() == current.Direct() && faster(e, current):
		return whyFaster
	}
	return ""
}

// preferred orders the paths that could take the place of another.
func preferred(a, b *entry, now time.Duration) bool {
	if x, y := a.state(now), b.state(now); x != y {
		return x > y
	}
	if a.Direct() != b.Direct() {
		return a.Direct()
	}
	if (now-a.last <= freshFor) != (now-b.last <= freshFor) {
		return a.last > b.last
	}
	return a.smooth < b.smooth
}

func faster(a, b *entry) bool {
	return a.smooth > 0 && a.smooth < b.smooth*3/4 && b.smooth-a.smooth >= fasterBy
}

// whyNone says why Stream is all there is.
func (s *Set) whyNone() string {
	why, most := whyNoPath, 0
	for i := range s.entries {
		e := &s.entries[i]
		var rank int
		var text string
		switch {
		case e.trouble != "":
			rank, text = 3, whyRefused+e.trouble
		case e.proven || e.narrows > 0:
			rank, text = 4, fmt.Sprintf(whyNarrow, e.floor)
		case e.tries < 3 && !e.ended:
			rank, text = 1, whyProbing
		default:
			rank, text = 2, whyUnanswered
		}
		if rank > most {
			most, why = rank, text
		}
	}
	return why
}

// Chosen is the path that packets take, its ID, and the largest packet in bytes that
// gets through. Those of Stream are 0.
func (s *Set) Chosen() (p Path, id uint16, mtu int) {
	if e := s.byPath(s.chosen); e != nil {
		return e.Path, e.id, e.mtu
	}
	return Stream, 0, 0
}

// Why says in a few words why the chosen path is.
func (s *Set) Why() string { return s.why }

// Infos are all paths but Stream.
func (s *Set) Infos(now time.Duration) []Info {
	out := make([]Info, 0, len(s.entries))
	for i := range s.entries {
		e := &s.entries[i]
		info := Info{
			Path: e.Path, State: e.state(now), Chosen: e.Path == s.chosen, MTU: e.mtu,
			RTT: e.smooth, LastRTT: e.rtt, Loss: e.loss(), Heard: e.last,
		}
		switch {
		case info.Chosen:
			info.Why = s.why
		case e.trouble != "" && e.mtu == 0:
			info.Why = whyRefused + e.trouble
		case info.State == Alive:
			info.Why = "not needed"
		}
		out = append(out, info)
	}
	return out
}
