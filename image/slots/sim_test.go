package slots

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/image/slots/slotstest"
)

// A disk whose power can be cut. What is not synced may be on it or not, sector
// by sector, and a directory's changes likewise. The ESP behaves as FAT does: a
// name whose removal was not synced may still be there with clusters that hold
// something else by now.

var errPower = errors.New("the power is gone")

// power counts operations and is cut before one of them; 0: never.
type power struct{ done, cutAt int }

func (p *power) use() error {
	p.done++
	if p.cutAt > 0 && p.done >= p.cutAt {
		return errPower
	}
	return nil
}

// blob is content with sectors that were not synced.
type blob struct {
	durable, seen []byte          // on the disk, and as the running system sees it
	dirty         map[int64]int64 // sectors that were not synced, by the window that they were written through
}

func newBlob(content []byte) *blob {
	return &blob{bytes.Clone(content), bytes.Clone(content), map[int64]int64{}}
}

// with is the durable content with these sectors written, cut to a size.
func (b *blob) with(sectors []int64, size int) []byte {
	out := make([]byte, size)
	copy(out, b.durable)
	for _, s := range sectors {
		if at := s * sectorSize; at < int64(size) {
			copy(out[at:min(at+sectorSize, int64(size))], b.seen[at:])
		}
	}
	return out
}

// simFile is an open file on a blob.
type simFile struct {
	*blob
	power       *power
	start, room int64 // a window of the blob; room 0: all of it, and it may grow
}

func (f simFile) ReadAt(p []byte, off int64) (int, error) {
	raw := f.seen
	if f.room > 0 {
		raw = raw[f.start : f.start+f.room]
	}
	return bytes.NewReader(raw).ReadAt(p, off)
}

func (f simFile) WriteAt(p []byte, off int64) (int, error) {
	if f.room > 0 && off+int64(len(p)) > f.room {
		return 0, errOutside
	}
	cut := f.power.use() // the sectors may arrive all the same
	from, to := f.start+off, f.start+off+int64(len(p))
	if grow := to - int64(len(f.seen)); grow > 0 {
		f.seen = append(f.seen, make([]byte, grow)...)
	}
	copy(f.seen[from:], p)
	for s := from / sectorSize; s*sectorSize < to; s++ {
		f.dirty[s] = f.start
	}
	return len(p), cut
}

func (f simFile) Sync() error {
	if err := f.power.use(); err != nil {
		return err
	}
	f.durable = append(f.durable, make([]byte, len(f.seen)-len(f.durable))...)
	for s, start := range f.dirty {
		if start == f.start { // each partition's node has a cache of its own
			copy(f.durable[s*sectorSize:min((s+1)*sectorSize, int64(len(f.seen)))], f.seen[s*sectorSize:])
			delete(f.dirty, s)
		}
	}
	return nil
}

func (f simFile) Size() (int64, error) {
	if f.room > 0 {
		return f.room, nil
	}
	return int64(len(f.seen)), nil
}

func (f simFile) Close() error { return nil }

// machine is a simulated machine: Disk and ESP.
type machine struct {
	power
	disk  *blob
	files map[string]*blob // as the running system sees them
	// Names that were made or removed since their directory was synced.
	made, gone map[string]*blob
}

func (m *machine) clone() *machine {
	out := &machine{disk: newBlob(m.disk.seen), files: map[string]*blob{}, made: map[string]*blob{}, gone: map[string]*blob{}}
	for name, b := range m.files {
		out.files[name] = newBlob(b.seen)
	}
	return out
}

// onDisk and onESP are the two interfaces of a machine.
type onDisk struct{ *machine }
type onESP struct{ *machine }

func (m onDisk) Table(Mode) (File, error) { return simFile{blob: m.disk, power: &m.power}, nil }
func (m onDisk) Open(p Partition, _ Mode) (File, error) {
	return simFile{m.disk, &m.power, p.Start, p.Size}, nil
}

func (m onESP) List(dir string) ([]string, error) {
	var out []string
	for name := range m.files {
		if path.Dir(name) == dir {
			out = append(out, path.Base(name))
		}
	}
	slices.Sort(out)
	return out, nil
}

func (m onESP) Open(name string, _ Mode) (File, error) {
	b, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return simFile{blob: b, power: &m.power}, nil
}

func (m onESP) Create(name string) (File, error) {
	if _, ok := m.files[name]; ok {
		return nil, fs.ErrExist
	}
	if err := m.use(); err != nil {
		return nil, err
	}
	m.files[name] = newBlob(nil)
	m.made[name] = m.files[name]
	return simFile{blob: m.files[name], power: &m.power}, nil
}

func (m onESP) Remove(name string) error {
	if _, ok := m.files[name]; !ok {
		return fs.ErrNotExist
	}
	cut := m.use() // it may have happened all the same
	if _, fresh := m.made[name]; !fresh {
		m.gone[name] = m.files[name]
	}
	delete(m.made, name)
	delete(m.files, name)
	return cut
}

func (m onESP) SyncDir(dir string) error {
	if err := m.use(); err != nil {
		return err
	}
	for _, names := range []map[string]*blob{m.made, m.gone} {
		maps.DeleteFunc(names, func(name string, _ *blob) bool { return path.Dir(name) == dir })
	}
	return nil
}

// after returns one disk that the power cut may have left, chosen by rnd: for
// each sector and name that was not synced, a coin, or all, or none.
func (m *machine) after(rnd *rand.Rand) *machine {
	mode := rnd.IntN(4)
	keep := func() bool { return mode == 0 || mode > 1 && rnd.IntN(2) == 0 }
	settle := func(b *blob) *blob {
		size := len(b.durable)
		if size != len(b.seen) && keep() {
			size = len(b.seen)
		}
		sectors := slices.DeleteFunc(slices.Sorted(maps.Keys(b.dirty)), func(int64) bool { return !keep() })
		return newBlob(b.with(sectors, size))
	}
	out := &machine{disk: settle(m.disk), files: map[string]*blob{}, made: map[string]*blob{}, gone: map[string]*blob{}}
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		if _, fresh := m.made[name]; !fresh || keep() {
			out.files[name] = settle(m.files[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.gone)) {
		if keep() {
			continue
		}
		left := settle(m.gone[name])
		if rnd.IntN(2) == 0 { // its clusters were freed and belong to others
			for i := sectorSize; i < len(left.durable); i++ {
				left.durable[i] = byte(rnd.Uint32())
			}
		}
		out.files[name] = left
	}
	return out
}

// system is a release of test content.
type system struct {
	Release
	content map[Part][]byte
}

// newSystem makes a system of its own for each version.
func newSystem(version string) system {
	c := slotstest.New(version, "amd64")
	s := system{content: map[Part][]byte{Root: c.Root, Verity: c.Verity, Kernel: c.UKI}}
	s.Release = Release{Image: "r.example/os:" + version, Digest: "sha256:" + strings.Repeat("0", 64), Pieces: map[Part]Piece{}}
	s.Config.Version, s.Config.Arch, s.Config.Flavour, s.Config.RootHash = version, "amd64", "generic", c.RootHash
	for part, content := range s.content {
		s.Pieces[part] = Piece{int64(len(content)), digestOf(content)}
	}
	return s
}

// Fetch implements Source.
func (s system) Fetch(_ context.Context, part Part, write func(io.Reader) error) error {
	return write(bytes.NewReader(s.content[part]))
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// boot does what firmware, systemd-boot and the initrd do, and returns the root
// hash of the system that runs then. spent says which UKIs have no tries left.
func (m *machine) boot(known []system, spent map[string]bool) (string, error) {
	parts, err := Partitions(bytes.NewReader(m.disk.durable), int64(len(m.disk.durable)))
	if err != nil {
		return "", err
	}
	var entries []Entry
	for name, b := range m.files {
		e, ok := ParseEntry(path.Base(name))
		if !ok {
			continue
		}
		if _, err := ReadUKI(bytes.NewReader(b.durable)); err != nil {
			continue // systemd-boot passes it over
		}
		if spent[e.File] {
			e.Counted, e.Left = true, 0
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return "", errors.New("nothing to boot")
	}
	first := slices.MinFunc(entries, Compare)
	uki := m.files[entriesDir+"/"+first.File].durable
	i := slices.IndexFunc(known, func(s system) bool { return bytes.Equal(s.content[Kernel], uki) })
	if i < 0 {
		return "", fmt.Errorf("%s is half a kernel", first.File)
	}
	rootHash := known[i].Config.RootHash
	rootID, treeID, err := UUIDs(rootHash)
	if err != nil {
		return "", err
	}
	find := func(u UUID) (found []io.ReaderAt) {
		for _, p := range parts {
			if p.UUID == u {
				found = append(found, io.NewSectionReader(bytes.NewReader(m.disk.durable), p.Start, p.Size))
			}
		}
		return found
	}
	root, tree := find(rootID), find(treeID)
	if len(root) != 1 || len(tree) != 1 {
		return "", fmt.Errorf("%s: %d partitions for its root, %d for its hash tree", first.File, len(root), len(tree))
	}
	parsed, err := ReadTree(tree[0])
	if err != nil {
		return "", fmt.Errorf("%s: %w", first.File, err)
	}
	return rootHash, parsed.Verify(context.Background(), root[0], tree[0], Check{RootHash: rootHash})
}
