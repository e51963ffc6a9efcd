package slots

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// chunk is how much is copied at once, in bytes.
const chunk = 1 << 20

// Writer carries out plans. It is not safe for concurrent use, and only one may
// be at work on a disk.
type Writer struct {
	Disk     Disk
	ESP      ESP
	Source   Source                             // not needed for plans that write no release
	Release  Release                            // what Source gives
	Progress func(step Step, done, total int64) // bytes; may be nil

	head []byte // the first sector of the UKI that is being written
}

// Run carries out a plan. After an error, or a power cut, what boots is what
// would have booted before, or the new system if the last step was reached; the
// next plan cleans up.
func (w *Writer) Run(ctx context.Context, p Plan) error {
	for _, s := range p.Steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.step(ctx, p, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// String says what the step does, for messages.
func (s Step) String() string {
	switch s.Op {
	case OpSweep, OpDrop:
		return "remove " + s.File
	case OpKernel, OpCopy:
		return "write the kernel to the ESP"
	case OpWrite:
		return "write the " + string(s.Part)
	case OpName:
		return "name the partition of the " + string(s.Part)
	case OpVerify:
		return "verify what was written"
	case OpRecord:
		return "note what is in the slots"
	case OpEnter:
		return "make " + s.File + " bootable"
	}
	return string(s.Op)
}

func (w *Writer) step(ctx context.Context, p Plan, s Step) error {
	switch s.Op {
	case OpSweep:
		return errors.Join(w.ESP.Remove(s.File), w.ESP.SyncDir("."))
	case OpDrop:
		return w.drop(s)
	case OpKernel:
		return w.kernel(ctx, p, s)
	case OpCopy:
		return w.copyKernel(p, s)
	case OpWrite:
		return w.write(ctx, p, s)
	case OpName:
		return w.name(p, s)
	case OpVerify:
		return w.verify(ctx, p, s)
	case OpRecord:
		return WriteRecords(w.ESP, p.Records)
	case OpEnter:
		return w.enter(s)
	}
	return fmt.Errorf("unknown step %q", s.Op)
}

// at returns what tells the progress of a step.
func (w *Writer) at(s Step) func(done, total int64) {
	if w.Progress == nil {
		return func(int64, int64) {}
	}
	return func(done, total int64) { w.Progress(s, done, total) }
}

// drop zeroes the first sector, so that the file is no program even if its name
// outlives its clusters, and removes it then.
func (w *Writer) drop(s Step) error {
	path := entriesDir + "/" + s.File
	err := each(func() (File, error) { return w.ESP.Open(path, Write) }, func(f File) error {
		size, err := f.Size()
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(make([]byte, min(size, sectorSize)), 0); err != nil {
			return err
		}
		return f.Sync()
	})
	if err != nil {
		return err
	}
	if err := w.ESP.Remove(path); err != nil {
		return err
	}
	return w.ESP.SyncDir(entriesDir)
}

// kernel writes the UKI but for its first sector and checks all of it.
func (w *Writer) kernel(ctx context.Context, p Plan, s Step) error {
	t := transfer{w.Release.Pieces[Kernel], w.at(s)}
	return w.newKernel(s, func(f File) error {
		if err := w.Source.Fetch(ctx, Kernel, func(r io.Reader) error { return w.fillKernel(f, r, t) }); err != nil {
			return err
		}
		return w.checkKernel(headed{w.head, f}, UKI{w.Release.Config.Arch, p.RootHash})
	})
}

// copyKernel does the same with a UKI that is on the ESP already.
func (w *Writer) copyKernel(p Plan, s Step) error {
	return each(func() (File, error) { return w.ESP.Open(entriesDir+"/"+s.From, Read) }, func(from File) error {
		size, err := from.Size()
		if err != nil {
			return err
		}
		return w.newKernel(s, func(f File) error {
			if err := w.fillKernel(f, io.NewSectionReader(from, 0, size), transfer{Piece{Size: size}, w.at(s)}); err != nil {
				return err
			}
			return w.checkKernel(headed{w.head, f}, UKI{RootHash: p.RootHash})
		})
	})
}

// newKernel makes the file and lets fill write it. A file that could not be
// filled is removed: an ESP that is full would stay so.
func (w *Writer) newKernel(s Step, fill func(File) error) error {
	path := entriesDir + "/" + s.File
	f, err := w.ESP.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return errors.Join(err, w.ESP.Remove(path), w.ESP.SyncDir(entriesDir))
	}
	return w.ESP.SyncDir(entriesDir)
}

// transfer is one copy.
type transfer struct {
	piece Piece
	at    func(done, total int64)
}

// fillKernel copies a UKI, keeps its first sector back, and reads it again.
func (w *Writer) fillKernel(f File, r io.Reader, t transfer) error {
	w.head = make([]byte, sectorSize)
	if _, err := io.ReadFull(r, w.head); err != nil {
		return fmt.Errorf("%w: %w", errNotUKI, err)
	}
	sum := sha256.New()
	_, _ = sum.Write(w.head) // a hash never fails
	if _, err := f.WriteAt(make([]byte, sectorSize), 0); err != nil {
		return err
	}
	n, err := copyTo(f, sectorSize, io.TeeReader(r, sum), t)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if n += sectorSize; n != t.piece.Size {
		return fmt.Errorf("%d bytes came instead of %d", n, t.piece.Size)
	}
	return sameSum(headed{w.head, f}, n, sum)
}

// checkKernel refuses a UKI that would start another system than the one it
// comes with: it could not boot, or would boot what nobody has verified.
func (w *Writer) checkKernel(r io.ReaderAt, want UKI) error {
	got, err := ReadUKI(r)
	switch {
	case err != nil:
		return err
	case want.Arch != "" && got.Arch != want.Arch:
		return fmt.Errorf("%w: it is a program for %q machines, not for %s", errNotUKI, got.Arch, want.Arch)
	case got.RootHash != want.RootHash:
		return fmt.Errorf("%w: its command line has another root hash than its release", errNotUKI)
	}
	return nil
}

// headed is a file with another first sector.
type headed struct {
	head []byte
	File
}

// ReadAt implements io.ReaderAt.
func (h headed) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(h.head)) {
		return h.File.ReadAt(p, off)
	}
	n := copy(p, h.head[off:])
	if n == len(p) {
		return n, nil
	}
	m, err := h.File.ReadAt(p[n:], int64(len(h.head)))
	return n + m, err
}

// sameSum reads n bytes back and compares them with what was written.
func sameSum(r io.ReaderAt, n int64, written hash.Hash) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, n)); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if string(sum.Sum(nil)) != string(written.Sum(nil)) {
		return ErrDamaged
	}
	return nil
}

// copyTo writes all of r from off on and returns how many bytes that were. It
// never writes more than was promised.
func copyTo(f File, off int64, r io.Reader, t transfer) (int64, error) {
	buf, start := make([]byte, chunk), off
	for {
		n, err := 0, error(nil)
		for n < len(buf) && err == nil {
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		if off+int64(n) > t.piece.Size {
			return off - start, fmt.Errorf("more than the promised %d bytes came", t.piece.Size)
		}
		if _, werr := f.WriteAt(buf[:n], off); werr != nil {
			return off - start, werr
		}
		off += int64(n)
		t.at(off, t.piece.Size)
		if errors.Is(err, io.EOF) {
			return off - start, nil
		}
		if err != nil {
			return off - start, err
		}
	}
}

// write puts a part on its partition, unless it is there already: then an
// earlier try was cut short after it.
func (w *Writer) write(ctx context.Context, p Plan, s Step) error {
	where, want, err := p.place(s.Part)
	if err != nil {
		return err
	}
	piece := w.Release.Pieces[s.Part]
	return each(func() (File, error) { return w.Disk.Open(where, Write) }, func(f File) error {
		if where.UUID == want && piece.Digest != "" {
			sum := sha256.New()
			if _, err := io.Copy(sum, io.NewSectionReader(f, 0, piece.Size)); err != nil {
				return err
			}
			if "sha256:"+hex.EncodeToString(sum.Sum(nil)) == piece.Digest {
				w.at(s)(piece.Size, piece.Size)
				return nil
			}
		}
		err := w.Source.Fetch(ctx, s.Part, func(r io.Reader) error {
			n, err := copyTo(f, 0, r, transfer{piece, w.at(s)})
			if err == nil && n != piece.Size {
				err = fmt.Errorf("%d bytes came instead of %d", n, piece.Size)
			}
			return err
		})
		if err != nil {
			return err
		}
		return f.Sync()
	})
}

// place returns the partition of a part and the UUID that it gets.
func (p Plan) place(part Part) (Partition, UUID, error) {
	root, verity, err := UUIDs(p.RootHash)
	if part == Verity {
		return p.Slot.Verity, verity, err
	}
	return p.Slot.Root, root, err
}

func (w *Writer) name(p Plan, s Step) error {
	where, want, err := p.place(s.Part)
	if err != nil {
		return err
	}
	return each(func() (File, error) { return w.Disk.Table(Write) }, func(f File) error { return setUUID(f, where.Number, want) })
}

func (w *Writer) verify(ctx context.Context, p Plan, s Step) error {
	return each(func() (File, error) { return w.Disk.Open(p.Slot.Root, Read) }, func(root File) error {
		return each(func() (File, error) { return w.Disk.Open(p.Slot.Verity, Read) }, func(verity File) error {
			tree, err := ReadTree(verity)
			if err != nil {
				return err
			}
			return tree.Verify(ctx, root, verity, Check{p.RootHash, w.at(s)})
		})
	})
}

// enter writes the sector that was kept back.
func (w *Writer) enter(s Step) error {
	if len(w.head) != sectorSize {
		return errors.New("its first sector is not known")
	}
	return each(func() (File, error) { return w.ESP.Open(entriesDir+"/"+s.File, Write) }, func(f File) error {
		if _, err := f.WriteAt(w.head, 0); err != nil {
			return err
		}
		return f.Sync()
	})
}
