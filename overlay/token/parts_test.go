package token

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// textOf is the text of a payload with these parts, filled up and with a right checksum.
func textOf(parts []byte) string {
	out := append([]byte{0}, parts[:min(len(parts), maxGroups*groupSize-1-checksumSize)]...)
	for (len(out)+checksumSize)%groupSize != 0 || len(out)+checksumSize < minGroups*groupSize {
		out = append(out, 0)
	}
	out[0] = byte((len(out) + checksumSize) / groupSize)
	return prefix + encoding.EncodeToString(append(out, checksum(out)...))
}

// part is a tag, its length and value.
func part(tag byte, value ...byte) []byte {
	return append([]byte{tag, byte(len(value))}, value...)
}

func repeat(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// A later version puts more into a token. This one keeps what it does not know and
// refuses what its maker marked as not to be passed over.
func TestPartsOfALaterVersion(t *testing.T) {
	nodes, seed, door := part(tagNodes, 3), part(tagSeed, repeat(2, seedSize)...), part(tagDoors, repeat(3, doorSize)...)
	known := slices.Concat(nodes, seed, door)
	two := slices.Concat(repeat(9, doorSize), repeat(3, doorSize))
	for _, c := range []struct {
		name  string
		parts []byte
		ok    bool
	}{
		{"nothing new", known, true},
		{"a part of the next tag", slices.Concat(known, part(tagLast+1, 1, 2)), true},
		{"an empty part", slices.Concat(known, part(0x7f)), true},
		{"several", slices.Concat(known, part(0x20, 1), part(0x21, repeat(7, 255)...)), true},
		{"two doors", slices.Concat(nodes, seed, part(tagDoors, two...)), true},
		{"critical", slices.Concat(known, part(0x80, 1)), false},
		{"critical after one that is not", slices.Concat(known, part(0x20, 1), part(0xff)), false},
		{"one tag twice", slices.Concat(known, part(0x20, 1), part(0x20, 2)), false},
		{"descending tags", slices.Concat(known, part(0x21, 1), part(0x20, 2)), false},
		{"a part cut short", slices.Concat(known, []byte{0x20, 200, 1}), false},
		{"more than this version keeps", slices.Concat(known, part(0x20, repeat(1, 255)...), part(0x21, repeat(1, 255)...)), false},
		{"no nodes", slices.Concat(seed, door), false},
		{"no seed", slices.Concat(nodes, door), false},
		{"seed of zeros", slices.Concat(nodes, part(tagSeed, repeat(0, seedSize)...), door), false},
		{"no door", slices.Concat(nodes, seed), false},
		{"0 nodes", slices.Concat(part(tagNodes, 0), seed, door), false},
		{"more nodes than we know", slices.Concat(part(tagNodes, MaxNodes+1), seed, door), false},
		{"nodes of two bytes", slices.Concat(part(tagNodes, 3, 3), seed, door), false},
		{"short seed", slices.Concat(nodes, part(tagSeed, 1), door), false},
		{"short door", slices.Concat(nodes, seed, part(tagDoors, repeat(3, doorSize-1)...)), false},
		{"door without a generation", slices.Concat(nodes, seed, part(tagDoors, repeat(0, doorSize)...)), false},
		{"older door first", slices.Concat(nodes, seed, part(tagDoors, slices.Concat(repeat(3, doorSize), repeat(9, doorSize))...)), false},
		{"one door twice", slices.Concat(nodes, seed, part(tagDoors, slices.Concat(repeat(3, doorSize), repeat(3, doorSize))...)), false},
		{"three doors", slices.Concat(nodes, seed, part(tagDoors, slices.Concat(two, repeat(2, doorSize))...)), false},
		{"short pin", slices.Concat(known, part(tagOwner, 1)), false},
		{"pin of zeros", slices.Concat(known, part(tagOwner, repeat(0, 16)...)), false},
		{"no peers", slices.Concat(known, part(tagPeers)), false},
		{"peer cut short", slices.Concat(known, part(tagPeers, 9, 'a')), false},
		{"peer that is no address", slices.Concat(known, part(tagPeers, 1, 'a')), false},
		{"too many zeros", slices.Concat(known, repeat(0, groupSize)), false},
		{"something after zeros", slices.Concat(known, []byte{0, 1}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := textOf(c.parts)
			tok, err := Parse(text)
			if c.ok {
				if err != nil || tok.Reveal() != text {
					t.Errorf("does not come out as it went in: %v", err)
				}
				if err == nil && len(tok.WithOwner(Pin{1}).Reveal()) <= len(text) {
					t.Error("something was lost when a pin came in")
				}
				return
			}
			if checkError(t, text, err); !errors.Is(err, ErrVersion) {
				t.Errorf("%v, want %v", err, ErrVersion)
			}
		})
	}
}

func TestOwnerAndPeers(t *testing.T) {
	tok := sample(t)
	if _, ok := tok.Owner(); ok || tok.Peers() != nil {
		t.Error("a new token has an owner or peers")
	}
	peers := []string{"a.example:1", "10.0.0.1:4171", "[fe80::1]:2"}
	full, err := tok.WithOwner(PinOf(ownerID)).WithPeers(peers)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(full.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if pin, ok := back.Owner(); !ok || pin != PinOf(ownerID) || pin == PinOf([32]byte{9}) {
		t.Errorf("pin %x", pin)
	}
	if !slices.Equal(back.Peers(), peers) {
		t.Errorf("peers %v", back.Peers())
	}
	if back.Keys().Genesis != tok.Keys().Genesis {
		t.Error("an owner or peers make it another network")
	}
	back.Peers()[0] = "changed"
	if _, ok := tok.Owner(); ok || !slices.Equal(back.Peers(), peers) {
		t.Error("a token changed")
	}
	if again, err := back.WithPeers(nil); err != nil || again.Peers() != nil {
		t.Errorf("peers do not go: %v, %v", again.Peers(), err)
	}
	for _, bad := range []string{
		"", "a", "a:", ":1", "a:0", "a:65536", "a:01", "a b:1", "a:1:2", "::1:1", "[fe80::1%eth0]:1", "a\n:1", "ä:1", "/ip4/10.0.0.1/udp/1:1",
		strings.Repeat("a", 300) + ":1",
	} {
		if _, err := tok.WithPeers([]string{bad}); !errors.Is(err, ErrPeers) {
			t.Errorf("%q: %v, want ErrPeers", bad, err)
		}
	}
	if _, err := tok.WithPeers(slices.Repeat([]string{"a:1"}, maxPeers+1)); !errors.Is(err, ErrPeers) {
		t.Errorf("too many: %v", err)
	}
	if _, err := tok.WithPeers(slices.Repeat([]string{strings.Repeat("a", 28) + ":1"}, maxPeers)); err != nil {
		t.Errorf("240 characters: %v", err)
	}
}
