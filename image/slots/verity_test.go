package slots

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/kairos-io/kairos/image/slots/slotstest"
)

func pattern(blocks int) []byte {
	out := make([]byte, blocks*block)
	for i := range out {
		out[i] = byte((i/block*7 + i%block) % 251)
	}
	return out
}

// What veritysetup 2.6.1 made of the same data: root hash, and SHA-256 of the tree.
var vectors = []struct {
	blocks         int
	rootHash, tree string
}{
	{1, "a3a0660052eabb629e957c1095e62e9fbe0847136ba9d245e725ba7c63f1cbd1", "4873bb8a9a21ddd493c32c07c1aa7d3c53b4c747bbd7c5d5c118eaa54dced1ff"},
	{5, "895ef45c4e61bf3f47ded8ffbedb1cdc058cdc5c5e33fcb95d745690e6c8283e", "f8b35401a57a820b8ef90f111de8c1203b7ef69c10f4ff4d75e33846ee635715"},
	{128, "796480bad31baeaedeaf8a8a4f2273e1a88089bbe7af69eabf431de2f038fb97", "e1813a7eb96640735c0fbb7fd72258f4e0dca82d48782b302348e1f62e705677"},
	{129, "29c00a7a77ca0e0a59847b6e00968c76aa5ba018ab6d814dc388043caae97939", "a47154cde574de9db5e6affca40c698d2e90cd29830e9f9e0881156fce466f9b"},
	{200, "19811d8604f58037be4b3321f1a2b3acd43a2f33ba2072bb348a5535a0e3e7f6", "5f67518f3443ad4990a0277e059b9d6e857f624040714554b71452b9ef5b49dc"},
}

func TestVerify(t *testing.T) {
	for _, v := range vectors {
		data := pattern(v.blocks)
		tree, rootHash := slotstest.Tree(data)
		if sum := sha256.Sum256(tree); rootHash != v.rootHash || hex.EncodeToString(sum[:]) != v.tree {
			t.Fatalf("%d blocks: root hash %s, tree %x", v.blocks, rootHash, sum)
		}
		parsed, err := ReadTree(bytes.NewReader(tree))
		if err != nil {
			t.Fatal(err)
		}
		if parsed.Size() != int64(len(tree)) || parsed.Blocks != int64(v.blocks) {
			t.Errorf("%d blocks: a tree of %d bytes for %d", v.blocks, parsed.Size(), parsed.Blocks)
		}
		var last int64
		check := Check{v.rootHash, func(done, _ int64) { last = done }}
		if err := parsed.Verify(t.Context(), bytes.NewReader(data), bytes.NewReader(tree), check); err != nil || last != int64(len(data)) {
			t.Errorf("%d blocks: %v after %d bytes", v.blocks, err, last)
		}
	}
}

// Every changed byte is found, wherever it is.
func TestVerifyFindsDamage(t *testing.T) {
	data := pattern(300)
	tree, rootHash := slotstest.Tree(data)
	for _, tc := range []struct {
		name string
		edit func(data, tree []byte) ([]byte, []byte, string)
	}{
		{"first byte of the root", func(d, h []byte) ([]byte, []byte, string) { d[0]++; return d, h, rootHash }},
		{"last byte of the root", func(d, h []byte) ([]byte, []byte, string) { d[len(d)-1]++; return d, h, rootHash }},
		{"a bit in the middle", func(d, h []byte) ([]byte, []byte, string) { d[200*block+7] ^= 1; return d, h, rootHash }},
		{"root cut short", func(d, h []byte) ([]byte, []byte, string) { return d[:len(d)-block], h, rootHash }},
		{"top of the tree", func(d, h []byte) ([]byte, []byte, string) { h[block]++; return d, h, rootHash }},
		{"padding of the tree", func(d, h []byte) ([]byte, []byte, string) { h[len(h)-1]++; return d, h, rootHash }},
		{"salt", func(d, h []byte) ([]byte, []byte, string) { h[88]++; return d, h, rootHash }},
		{"tree cut short", func(d, h []byte) ([]byte, []byte, string) { return d, h[:len(h)-block], rootHash }},
		{"another root hash", func(d, h []byte) ([]byte, []byte, string) { return d, h, vectors[0].rootHash }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, h, want := tc.edit(bytes.Clone(data), bytes.Clone(tree))
			parsed, err := ReadTree(bytes.NewReader(h))
			if err != nil {
				t.Fatal(err)
			}
			if err := parsed.Verify(t.Context(), bytes.NewReader(d), bytes.NewReader(h), Check{RootHash: want}); !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v", err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	parsed, err := ReadTree(bytes.NewReader(tree))
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Verify(ctx, bytes.NewReader(data), bytes.NewReader(tree), Check{RootHash: rootHash}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestTreesThatAreNone(t *testing.T) {
	good, _ := slotstest.Tree(pattern(2))
	for _, tc := range []struct {
		name string
		edit func(sb []byte)
	}{
		{"no signature", func(sb []byte) { sb[0] = 0 }},
		{"another version", func(sb []byte) { sb[8] = 2 }},
		{"another kind", func(sb []byte) { sb[12] = 0 }},
		{"another hash", func(sb []byte) { copy(sb[32:], "sha512") }},
		{"small blocks", func(sb []byte) { binary.LittleEndian.PutUint32(sb[64:], 512) }},
		{"no blocks", func(sb []byte) { sb[72] = 0 }},
		{"blocks without end", func(sb []byte) { binary.LittleEndian.PutUint64(sb[72:], 1<<60) }},
		{"a salt without end", func(sb []byte) { binary.LittleEndian.PutUint16(sb[80:], 257) }},
	} {
		sb := bytes.Clone(good)
		tc.edit(sb)
		if _, err := ReadTree(bytes.NewReader(sb)); err == nil {
			t.Errorf("%s: taken", tc.name)
		}
	}
	if _, err := ReadTree(bytes.NewReader(good[:100])); err == nil {
		t.Error("half a superblock: taken")
	}
}
