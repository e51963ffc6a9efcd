package health

import (
	"testing"
	"time"
)

func codes(s *Set) (out string) {
	for _, c := range s.List() {
		out += c.Code + " "
	}
	return out
}

func TestSet(t *testing.T) {
	t0 := time.Unix(100, 0)
	var s Set
	if s.Worst() != Info || len(s.List()) != 0 || s.Clear("x") {
		t.Error("the zero set is not empty")
	}
	waiting := Condition{Code: CodeWaiting, Severity: Info, Text: "need 2, see 1"}
	if !s.Raise(waiting, t0) || s.Raise(waiting, t0.Add(time.Hour)) {
		t.Error("raising reports the wrong changes")
	}
	if got := s.List()[0].Since; got != t0 {
		t.Errorf("since %v moved", got)
	}
	waiting.Text = "need 3, see 1"
	if !s.Raise(waiting, t0.Add(time.Hour)) || s.List()[0].Since != t0 {
		t.Error("a new text is a change and no new beginning")
	}
	s.Raise(Condition{Code: CodeServerLost, Severity: Warning}, t0)
	s.Raise(Condition{Code: CodeConflict, Severity: Error}, t0)
	s.Raise(Condition{Code: CodeNeedsOperator, Severity: Error}, t0)
	if got := codes(&s); got != "Conflict NeedsOperator ServerLost Waiting " || s.Worst() != Error {
		t.Errorf("order %q, worst %q", got, s.Worst())
	}
	if !s.Clear(CodeConflict) || s.Clear(CodeConflict) {
		t.Error("clearing reports the wrong changes")
	}
}

func TestReplace(t *testing.T) {
	t0 := time.Unix(100, 0)
	a, b := Condition{Code: "A", Severity: Info}, Condition{Code: "B", Severity: Error}
	var s Set
	steps := []struct {
		with    []Condition
		changed bool
		want    string
	}{
		{nil, false, ""}, {[]Condition{a, b}, true, "B A "}, {[]Condition{b, a}, false, "B A "},
		{[]Condition{a}, true, "A "}, {[]Condition{a, b}, true, "B A "}, {nil, true, ""},
	}
	for i, step := range steps {
		now := t0.Add(time.Duration(i) * time.Minute)
		if got := s.Replace(now, step.with...); got != step.changed || codes(&s) != step.want {
			t.Errorf("step %d: changed %v, now %q", i, got, codes(&s))
		}
		if i == 4 && (s.List()[0].Since != now || s.List()[1].Since != t0.Add(time.Minute)) {
			t.Errorf("since %v and %v", s.List()[0].Since, s.List()[1].Since)
		}
	}
}

// Two things may have one code in one turn. Which of them is told does not
// change from turn to turn, and repeating both is no change.
func TestReplaceTwoOfOneCode(t *testing.T) {
	cause := Condition{Code: CodeWaiting, Severity: Info, Text: "getting the image: 3 of 40 MB"}
	effect := Condition{Code: CodeWaiting, Severity: Info, Text: "getting the image"}
	var s Set
	for i, want := range []bool{true, false, false} {
		if got := s.Replace(time.Unix(int64(i), 0), cause, effect); got != want {
			t.Errorf("turn %d: changed %v", i, got)
		}
		if l := s.List(); len(l) != 1 || l[0].Text != cause.Text {
			t.Errorf("turn %d: %+v", i, l)
		}
	}
}
