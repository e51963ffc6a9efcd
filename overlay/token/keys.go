package token

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"

	"github.com/kairos-io/kairos/overlay/secret"
)

// Keys are the sub-keys of a token. Knowing one says nothing about another or
// about the token (HKDF-SHA256, RFC 5869), but that a door's Find is one secret of which
// its four keys are made. The network's keys come from the seed alone and last as long
// as it; a door's come from its own secret, with the seed as salt.
type Keys struct {
	Address secret.Key // seed of the overlay's ranges, see identity.NetworkOf
	Genesis [32]byte   // public fingerprint that votes are bound to; it depends on the node count
	NetID   [32]byte   // public name of the network, for life
	Doors   Doors      // what lets one in; they change in the life of a network
}

// IsZero reports whether there are no keys.
func (k Keys) IsZero() bool { return len(k.Doors) == 0 }

// Doors are one or two doors, the newest first: what one says to others is said with the
// first, and what they say may be of any. Whoever is let in proved one of them.
type Doors []Door

// Match returns the newest door for which opens holds. It asks about every door, so that
// the time it takes does not tell which one it was.
func (d Doors) Match(opens func(Door) bool) (found Door, ok bool) {
	for _, door := range d {
		if opens(door) && !ok {
			found, ok = door, true
		}
	}
	return found, ok
}

// Door is one generation of what lets a machine find the others and join them.
type Door struct {
	Gen  uint8      // grows with every new door; not 0
	Find Find       // every member has it
	Join secret.Key // only newcomers need it
	// CommitFind and CommitJoin are public: whoever is given Find or Join later can tell
	// by them that it is the right one.
	CommitFind, CommitJoin [32]byte
}

// Find is what members find each other by, and what keeps strangers from noticing.
type Find struct {
	Frame   secret.Key // hides the first words of a connection
	Knock   secret.Key // opens the port
	MDNS    secret.Key // names on the local network
	Outside secret.Key // names beyond it
}

// findSize is how much of a door its find part is made of, in bytes.
const findSize = 16

// Keys derives the sub-keys. It panics for the zero Token, whose keys the
// whole world could compute.
func (t Token) Keys() Keys {
	if t.secret == nil {
		panic("token: keys of the zero token")
	}
	c := *t.secret
	seed := c.seed[:]
	k := Keys{
		Address: secret.NewKey(expand(seed, seed, "net/address")),
		// Two tokens that differ in the node count disagree on the quorum, so that no
		// vote for one may count for the other.
		Genesis: expand(seed, append(bytes.Clone(seed), c.nodes), "net/genesis"),
		NetID:   expand(seed, seed, "net/id"),
	}
	for _, d := range c.doors {
		k.Doors = append(k.Doors, newDoor(d, seed))
	}
	return k
}

// newDoor derives what one door secret opens; seed is the network's.
func newDoor(d doorSecret, seed []byte) Door {
	find := derive(d.secret[:], seed, "door/find", findSize)
	join := expand(d.secret[:], seed, "door/join")
	return Door{
		Gen: d.gen,
		Find: Find{
			Frame:   secret.NewKey(expand(find, seed, "frame")),
			Knock:   secret.NewKey(expand(find, seed, "knock")),
			MDNS:    secret.NewKey(expand(find, seed, "mdns")),
			Outside: secret.NewKey(expand(find, seed, "outside")),
		},
		Join:       secret.NewKey(join),
		CommitFind: expand(find, seed, "door/commit-find"),
		CommitJoin: expand(join[:], seed, "door/commit-join"),
	}
}

func expand(key, salt []byte, label string) [32]byte {
	return [32]byte(derive(key, salt, label, 32))
}

func derive(key, salt []byte, label string, size int) []byte {
	out, err := hkdf.Key(sha256.New, key, salt, "kairos/2/"+label, size)
	if err != nil {
		panic("token: derive: " + err.Error()) // only for lengths that are constants here
	}
	return out
}
