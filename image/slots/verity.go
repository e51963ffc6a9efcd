package slots

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/kairos-io/kairos/image/release"
)

const (
	block     = release.BlockSize
	sums      = block / sha256.Size // in a block of the hash tree
	readAhead = 256                 // blocks of the root that are read at once
)

// ErrDamaged: what is on the disk is not what its root hash says.
var ErrDamaged = errors.New("what was written is not what is read back")

// Tree is the superblock of a dm-verity hash tree: version 1, SHA-256, blocks
// of 4096 bytes, which is what veritysetup and systemd-repart make.
type Tree struct {
	Blocks int64 // of data
	salt   []byte
	levels []level // the one over the data first
}

type level struct{ start, size int64 } // blocks

// ReadTree reads the superblock.
func ReadTree(r io.ReaderAt) (Tree, error) {
	sb := make([]byte, 512)
	if _, err := r.ReadAt(sb, 0); err != nil {
		return Tree{}, fmt.Errorf("read the hash tree: %w", err)
	}
	le := binary.LittleEndian
	salt := int(le.Uint16(sb[80:]))
	switch {
	case !bytes.Equal(sb[:8], []byte("verity\x00\x00")) || le.Uint32(sb[8:]) != 1 || le.Uint32(sb[12:]) != 1:
		return Tree{}, errors.New("read the hash tree: it is not one of dm-verity, version 1")
	case string(bytes.TrimRight(sb[32:64], "\x00")) != "sha256":
		return Tree{}, errors.New("read the hash tree: it is not made with sha256")
	case le.Uint32(sb[64:]) != block || le.Uint32(sb[68:]) != block:
		return Tree{}, fmt.Errorf("read the hash tree: its blocks are not %d bytes", block)
	case salt > 256:
		return Tree{}, errors.New("read the hash tree: its salt is too long")
	}
	t := Tree{Blocks: int64(le.Uint64(sb[72:])), salt: sb[88 : 88+salt]}
	if t.Blocks < 1 || t.Blocks > release.RootSize/block {
		return Tree{}, fmt.Errorf("read the hash tree: it is for a root of %d blocks", t.Blocks)
	}
	for n := t.Blocks; n > 1; {
		n = (n + sums - 1) / sums
		t.levels = append(t.levels, level{size: n})
	}
	at := int64(1) // after the superblock's; the highest level comes first
	for i := len(t.levels) - 1; i >= 0; i-- {
		t.levels[i].start = at
		at += t.levels[i].size
	}
	return t, nil
}

// Size returns the bytes of the whole tree.
func (t Tree) Size() int64 {
	n := int64(1)
	for _, l := range t.levels {
		n += l.size
	}
	return n * block
}

// Verify reads all of root and of its tree and compares them with the root
// hash, as the kernel will do block by block. progress is told bytes of the root.
func (t Tree) Verify(ctx context.Context, root, tree io.ReaderAt, check Check) error {
	want, err := hex.DecodeString(check.RootHash)
	if err != nil {
		return fmt.Errorf("verify: root hash: %w", err)
	}
	v := verifier{tree: t, sum: sha256.New()}
	// From the top, so that each level is known to be good before it is believed.
	for i := len(t.levels) - 1; i >= 0; i-- {
		above := upper{sums: want}
		if i+1 < len(t.levels) {
			above = upper{r: tree, at: t.levels[i+1]}
		}
		if err := v.level(ctx, scan{r: tree, at: t.levels[i]}, above); err != nil {
			return fmt.Errorf("verify the hash tree: %w", err)
		}
	}
	above := upper{sums: want}
	if len(t.levels) > 0 {
		above = upper{r: tree, at: t.levels[0]}
	}
	if err := v.level(ctx, scan{root, level{0, t.Blocks}, check.Progress}, above); err != nil {
		return fmt.Errorf("verify the root: %w", err)
	}
	return nil
}

// Check is what is verified.
type Check struct {
	RootHash string
	Progress func(done, total int64) // may be nil
}

// upper gives the sums of the blocks of one level: from the level above, or the root hash.
type upper struct {
	sums []byte
	r    io.ReaderAt
	at   level
}

// next returns the sums that start with block i of the level below.
func (u *upper) next(i int64) ([]byte, error) {
	if u.r == nil {
		return u.sums, nil
	}
	if u.sums == nil {
		u.sums = make([]byte, block)
	}
	_, err := u.r.ReadAt(u.sums, (u.at.start+i/sums)*block)
	return u.sums, err
}

// scan is a run of blocks that is read from its beginning to its end.
type scan struct {
	r        io.ReaderAt
	at       level
	progress func(done, total int64)
}

type verifier struct {
	tree Tree
	sum  hash.Hash
	buf  []byte
}

// level compares the blocks of s with the sums above them.
func (v *verifier) level(ctx context.Context, s scan, above upper) error {
	if v.buf == nil {
		v.buf = make([]byte, readAhead*block)
	}
	var want []byte
	for i := int64(0); i < s.at.size; i += readAhead {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(readAhead, s.at.size-i)
		if _, err := s.r.ReadAt(v.buf[:n*block], (s.at.start+i)*block); err != nil {
			return fmt.Errorf("%w: block %d: %w", ErrDamaged, i, err)
		}
		for j := range n {
			if (i+j)%sums == 0 {
				var err error
				if want, err = above.next(i + j); err != nil {
					return fmt.Errorf("%w: sums of block %d: %w", ErrDamaged, i+j, err)
				}
			}
			k := (i + j) % sums * sha256.Size
			if got := v.digest(v.buf[j*block : (j+1)*block]); !bytes.Equal(got, want[k:k+sha256.Size]) {
				return fmt.Errorf("%w: block %d", ErrDamaged, i+j)
			}
		}
		if s.progress != nil {
			s.progress((i+n)*block, s.at.size*block)
		}
	}
	return nil
}

func (v *verifier) digest(b []byte) []byte {
	v.sum.Reset()
	_, _ = v.sum.Write(v.tree.salt) // a hash never fails
	_, _ = v.sum.Write(b)
	return v.sum.Sum(nil)
}
