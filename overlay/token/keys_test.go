package token

import (
	"testing"

	"github.com/kairos-io/kairos/overlay/secret"
)

// all are the keys and public names of a token, by what they are for.
func all(k Keys) map[string][32]byte {
	bytes := func(k secret.Key) [32]byte { return [32]byte(k.Bytes()) }
	out := map[string][32]byte{"address": bytes(k.Address), "genesis": k.Genesis, "id": k.NetID}
	for i, d := range k.Doors {
		n := string(rune('0' + i))
		out["frame"+n], out["knock"+n] = bytes(d.Find.Frame), bytes(d.Find.Knock)
		out["mdns"+n], out["outside"+n] = bytes(d.Find.MDNS), bytes(d.Find.Outside)
		out["join"+n], out["commit-find"+n], out["commit-join"+n] = bytes(d.Join), d.CommitFind, d.CommitJoin
	}
	return out
}

func TestKeysDiffer(t *testing.T) {
	seen := map[[32]byte]string{}
	for name, key := range all(fullToken(t).Keys()) {
		if other, taken := seen[key]; taken {
			t.Errorf("%s and %s share a key", name, other)
		}
		seen[key] = name
	}
}

// What follows from the seed stays when doors come and go; what follows from a door does
// not depend on the others. Votes are bound to the node count too.
func TestWhatKeysDependOn(t *testing.T) {
	one, two := sample(t), fullToken(t)
	a, b := one.Keys(), two.Keys()
	if *(*[32]byte)(a.Address.Bytes()) != *(*[32]byte)(b.Address.Bytes()) || a.Genesis != b.Genesis || a.NetID != b.NetID {
		t.Error("another door makes another network")
	}
	old := all(Keys{Address: a.Address, Doors: b.Doors[1:]})
	for name, key := range all(Keys{Address: a.Address, Doors: a.Doors}) {
		if key != old[name] {
			t.Errorf("%s: a newer door changes the older one", name)
		}
	}
	other, err := Generate(counting(), 5) // the same secrets, another node count
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range all(other.Keys()) {
		if same := key == all(a)[name]; same != (name != "genesis") {
			t.Errorf("%s: the same with another node count is %v", name, same)
		}
	}
	c := **one.secret
	c.seed[0]++
	for name, key := range all(wrap(&c).Keys()) {
		if key == all(a)[name] {
			t.Errorf("%s: the same in another network", name)
		}
	}
}

func TestDoorsMatch(t *testing.T) {
	doors := fullToken(t).Keys().Doors
	asked := 0
	match := func(opens func(Door) bool) (Door, bool) {
		asked = 0
		return doors.Match(func(d Door) bool { asked++; return opens(d) })
	}
	for _, want := range doors {
		if got, ok := match(func(d Door) bool { return d.Gen == want.Gen }); !ok || got.Gen != want.Gen || asked != 2 {
			t.Errorf("door %d: got %d, %v, asked %d times", want.Gen, got.Gen, ok, asked)
		}
	}
	if got, ok := match(func(Door) bool { return true }); !ok || got.Gen != doors[0].Gen || asked != 2 {
		t.Errorf("all open: got %d, %v, asked %d times", got.Gen, ok, asked)
	}
	if got, ok := match(func(Door) bool { return false }); ok || got.Gen != 0 {
		t.Errorf("none opens: got %d", got.Gen)
	}
}
