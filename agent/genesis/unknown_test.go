package genesis

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/store"
)

// plant adds a field of a later version to every object in raw but ballots and
// registers, each of another value, and returns the values.
func plant(t *testing.T, raw []byte) (out []byte, planted []string) {
	t.Helper()
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	var walk func(x any)
	walk = func(x any) {
		switch x := x.(type) {
		case map[string]any:
			_, ballot := x["round"]
			_, register := x["kind"]
			if ballot || register {
				return
			}
			for _, inner := range x {
				walk(inner)
			}
			mark := fmt.Sprintf("later-%d-", len(planted))
			planted = append(planted, mark)
			x["later"] = map[string]any{"deep": mark}
		case []any:
			for _, inner := range x {
				walk(inner)
			}
		}
	}
	walk(tree)
	out, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return out, planted
}

// Votes that a later version wrote more into are read after the machine went back
// to this one, and nothing of that is lost when this version votes and learns, or
// tells others (fault A18).
func TestVotesKeepWhatALaterVersionAdds(t *testing.T) {
	b := newBench(t, 3, 3)
	rival := b.decision(2, 7, Started)
	s, err := b.core(2).Adopt(State{Epoch: 2, Prior: b.abandoned(1, 1), Decision: b.decision(2, 5, Open), Rival: rival,
		Votes: []Acceptance{{Register: Register{GenesisRegister, 2}, Promised: Ballot{1, b.keys[0].ID()}, Accepted: Ballot{1, b.keys[0].ID()}, Value: new(b.value(5))}}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	raw, planted := plant(t, raw)
	if len(planted) < 20 {
		t.Fatalf("only %d objects in %s", len(planted), raw)
	}
	disk, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if _, _, err := disk.Load(); err != nil {
		t.Fatal(err)
	}
	if err := disk.Update(func(st *store.State) error { st.Genesis = raw; return nil }); err != nil {
		t.Fatal(err)
	}
	votes := NewStore(disk)
	got, err := votes.Load()
	if err != nil {
		t.Fatalf("votes of a later version are not usable: %v", err)
	}
	// It votes on the outcome, and learns it.
	c := b.core(2)
	next, _, ok := c.Begin(got, Register{OutcomeRegister, 2}, Value{UID: b.uid(5), Outcome: Started}, 0)
	if !ok {
		t.Fatal("it does not vote")
	}
	next, changed, err := c.Learn(next, Message{Decision: b.decision(2, 5, Started)})
	if err != nil || !changed {
		t.Fatalf("it does not learn: %v", err)
	}
	if err := votes.Save(next); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadFile(disk.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range planted {
		if !strings.Contains(string(left), mark) {
			t.Errorf("%s is lost from %s", mark, raw)
		}
	}
	told, err := c.Know(next).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(slices.DeleteFunc(slices.Clone(planted), func(m string) bool { return !strings.Contains(string(told), m) })); n < 15 {
		t.Errorf("others are told %d of what was added to %d objects", n, len(planted))
	}
}

// What others add is bounded, so that all that a node knows still fits into a message.
func TestProofsAreBounded(t *testing.T) {
	b := newBench(t, 3, 3)
	for _, size := range []int{1 << 10, 12 << 10, 30 << 10} {
		raw, err := Message{Version: messageVersion, Type: TypeKnow, NetworkID: "home", Decision: b.decision(2, 5, Started)}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(raw), `"outcome":{`, `"outcome":{"later":"`+strings.Repeat("x", size)+`",`, 1)
		if m, err := DecodeMessage([]byte(text)); (err == nil) != (size < maxDecision-4<<10) {
			t.Errorf("%d bytes of a later version: %v, %v", size, m.Decision != nil, err)
		}
	}
}
