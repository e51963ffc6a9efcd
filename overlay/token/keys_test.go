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
	for name, key := range all(sample(t).Keys()) {
		if other, taken := seen[key]; taken {
			t.Errorf("%s and %s share a key", name, other)
		}
		seen[key] = name
	}
}
