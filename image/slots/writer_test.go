package slots

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/slots/slotstest"
)

// bad is a source that gives something else for one part.
type bad struct {
	system
	part Part
	give func(content []byte) []byte
	err  error // at the end
	once bool  // the first time only
}

func (b *bad) Fetch(ctx context.Context, part Part, write func(io.Reader) error) error {
	if part != b.part {
		return b.system.Fetch(ctx, part, write)
	}
	r := io.MultiReader(bytes.NewReader(b.give(bytes.Clone(b.content[part]))), failing{b.err})
	err := write(r)
	if err != nil && b.once {
		return b.system.Fetch(ctx, part, write)
	}
	return err
}

// failing reads nothing but an error, or the end.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// What is refused leaves the machine as it was: bad kernels do not even cost the
// way back, and nothing that came wrong boots.
func TestBadContent(t *testing.T) {
	one, two, three := newSystem("v1"), newSystem("v2"), newSystem("v3")
	known := []system{one, two, three}
	upgraded := flashed(t, one)
	must(t, upgraded.run(t, two, upgradeTo(two), one.Config.RootHash))
	upgraded.rename(t, "kairos-000002+3.efi", "kairos-000002.efi") // found good; v1 is the way back
	network := errors.New("connection lost")
	other := slotstest.UKI("amd64", "roothash="+two.Config.RootHash, 3000)
	for _, tc := range []struct {
		name   string
		part   Part
		give   func([]byte) []byte
		err    error
		want   string
		intact bool // the way back is still there
	}{
		{"kernel cut short", Kernel, func(b []byte) []byte { return b[:2048] }, nil, "2048 bytes came instead of 3000", true},
		{"kernel of a few bytes", Kernel, func(b []byte) []byte { return b[:10] }, nil, "not a unified kernel image", true},
		{"kernel too long", Kernel, func(b []byte) []byte { return append(b, 0) }, nil, "more than the promised 3000 bytes", true},
		{"kernel without end", Kernel, func(b []byte) []byte { return bytes.Repeat(b, 2000) }, nil, "more than the promised", true},
		{"kernel of another system", Kernel, func([]byte) []byte { return other }, nil, "another root hash", true},
		{"kernel without a root hash", Kernel, func([]byte) []byte { return slotstest.UKI("amd64", "quiet", 3000) }, nil, "another root hash", true},
		{"kernel for other machines", Kernel, func([]byte) []byte { return slotstest.UKI("arm64", "roothash="+three.Config.RootHash, 3000) }, nil, `a program for "arm64" machines`, true},
		{"kernel that is none", Kernel, func(b []byte) []byte { return make([]byte, len(b)) }, nil, "not a unified kernel image", true},
		{"connection lost in the kernel", Kernel, func(b []byte) []byte { return b[:2500] }, network, "connection lost", true},
		{"root cut short", Root, func(b []byte) []byte { return b[:4096] }, nil, "4096 bytes came instead of 49152", false},
		{"root too long", Root, func(b []byte) []byte { return append(b, 0) }, nil, "more than the promised 49152 bytes", false},
		{"root without end", Root, func(b []byte) []byte { return bytes.Repeat(b, 100) }, nil, "more than the promised", false},
		{"root of other bytes", Root, func(b []byte) []byte { b[5000]++; return b }, nil, ErrDamaged.Error(), false},
		{"connection lost in the root", Root, func(b []byte) []byte { return b[:100] }, network, "connection lost", false},
		{"hash tree of other bytes", Verity, func(b []byte) []byte { b[5000]++; return b }, nil, ErrDamaged.Error(), false},
		{"hash tree of another system", Verity, func([]byte) []byte { return two.content[Verity] }, nil, ErrDamaged.Error(), false},
		{"hash tree that is none", Verity, func(b []byte) []byte { return make([]byte, len(b)) }, nil, "not one of dm-verity", false},
		{"no hash tree", Verity, func([]byte) []byte { return nil }, nil, "0 bytes came instead of", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := upgraded.clone()
			p, err := PlanUpgrade(m.facts(t, two.Config.RootHash), three.Release)
			must(t, err)
			w := m.writer(three)
			w.Source = &bad{system: three, part: tc.part, give: tc.give, err: tc.err}
			if err := w.Run(t.Context(), p); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "write the ") && !strings.HasPrefix(err.Error(), "verify ") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if got, err := m.boot(known, nil); err != nil || got != two.Config.RootHash {
				t.Errorf("boots %.8s, %v", got, err)
			}
			st, err := Inspect(m.facts(t, two.Config.RootHash))
			must(t, err)
			if want := map[bool]State{true: Rollback, false: Empty}[tc.intact]; st.Other.State != want {
				t.Errorf("the other slot is %s, want %s", st.Other.State, want)
			}
			if tc.intact && len(m.facts(t, two.Config.RootHash).Entries) != 2 {
				t.Error("the refused kernel fills the ESP")
			}
			must(t, m.run(t, three, upgradeTo(three), two.Config.RootHash))
			if got, err := m.boot(known, nil); err != nil || got != three.Config.RootHash {
				t.Errorf("the next try: boots %.8s, %v", got, err)
			}
		})
	}
}

// A transfer that is tried again begins again.
func TestTransferIsRepeated(t *testing.T) {
	one, two := newSystem("v1"), newSystem("v2")
	for _, part := range []Part{Kernel, Root, Verity} {
		m := flashed(t, one)
		p, err := PlanUpgrade(m.facts(t, one.Config.RootHash), two.Release)
		must(t, err)
		w := m.writer(two)
		w.Source = &bad{system: two, part: part, give: func(b []byte) []byte { return b[:1000] }, err: errors.New("connection lost"), once: true}
		must(t, w.Run(t.Context(), p))
		if got, err := m.boot([]system{one, two}, nil); err != nil || got != two.Config.RootHash {
			t.Errorf("%s: boots %.8s, %v", part, got, err)
		}
	}
}

// counting tells which parts were fetched.
type counting struct {
	system
	fetched []Part
}

func (c *counting) Fetch(ctx context.Context, part Part, write func(io.Reader) error) error {
	c.fetched = append(c.fetched, part)
	return c.system.Fetch(ctx, part, write)
}

// What an earlier try has written to the end is not fetched again.
func TestWhatIsThereIsNotFetched(t *testing.T) {
	one, two := newSystem("v1"), newSystem("v2")
	m := flashed(t, one)
	w := m.writer(two)
	w.Source = &bad{system: two, part: Verity, give: func([]byte) []byte { return nil }}
	p, err := PlanUpgrade(m.facts(t, one.Config.RootHash), two.Release)
	must(t, err)
	if err := w.Run(t.Context(), p); err == nil {
		t.Fatal("no error")
	}
	src := &counting{system: two}
	w = m.writer(two)
	w.Source = src
	p, err = PlanUpgrade(m.facts(t, one.Config.RootHash), two.Release)
	must(t, err)
	must(t, w.Run(t.Context(), p))
	if len(src.fetched) != 2 || src.fetched[0] != Kernel || src.fetched[1] != Verity {
		t.Errorf("fetched %q", src.fetched)
	}
	if got, err := m.boot([]system{one, two}, nil); err != nil || got != two.Config.RootHash {
		t.Errorf("boots %.8s, %v", got, err)
	}
}

// Progress ends at the size of each part, and a record says when and from where.
func TestProgressAndRecord(t *testing.T) {
	one, two := newSystem("v1"), newSystem("v2")
	two.At = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	m := flashed(t, one)
	p, err := PlanUpgrade(m.facts(t, one.Config.RootHash), two.Release)
	must(t, err)
	last := map[string][2]int64{}
	w := m.writer(two)
	w.Progress = func(s Step, done, total int64) { last[string(s.Op)+string(s.Part)] = [2]int64{done, total} }
	must(t, w.Run(t.Context(), p))
	for step, part := range map[string]Part{"kernel": Kernel, "writeroot": Root, "writeverity": Verity, "verify": Root} {
		if n := two.Pieces[part].Size; last[step] != [2]int64{n, n} {
			t.Errorf("%s: %v of %d", step, last[step], n)
		}
	}
	r, err := ReadRecords(onESP{m})
	must(t, err)
	want := Record{Image: "r.example/os:v2", Digest: two.Digest, Version: "v2", Flavour: "generic", RootHash: two.Config.RootHash, Generation: 2, StagedAt: two.At}
	if r.B == nil || !reflect.DeepEqual(*r.B, want) || r.A == nil || r.A.Version != "v1" {
		t.Errorf("got %+v, %+v", r.A, r.B)
	}
}

func TestCancelled(t *testing.T) {
	one, two := newSystem("v1"), newSystem("v2")
	m := flashed(t, one)
	p, err := PlanUpgrade(m.facts(t, one.Config.RootHash), two.Release)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	w := m.writer(two)
	w.Progress = func(s Step, _, _ int64) {
		if s.Part == Root {
			cancel()
		}
	}
	if err := w.Run(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got, err := m.boot([]system{one, two}, nil); err != nil || got != one.Config.RootHash {
		t.Errorf("boots %.8s, %v", got, err)
	}
}

// full is an ESP without room.
type full struct{ onESP }

func (f full) Create(name string) (File, error) {
	file, err := f.onESP.Create(name)
	return fullFile{file}, err
}

type fullFile struct{ File }

var errFull = errors.New("no space left on device")

func (fullFile) WriteAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestFullESP(t *testing.T) {
	one, two, three := newSystem("v1"), newSystem("v2"), newSystem("v3")
	m := flashed(t, one)
	must(t, m.run(t, two, upgradeTo(two), one.Config.RootHash))
	p, err := PlanUpgrade(m.facts(t, one.Config.RootHash), three.Release)
	must(t, err)
	before := m.clone()
	w := m.writer(three)
	w.ESP = full{onESP{m}}
	if err := w.Run(t.Context(), p); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal(before.disk.seen, m.disk.seen) || len(before.files) != len(m.files) {
		t.Error("something has changed")
	}
}

// fsck makes files of clusters that a power cut left without a name. They would
// fill the ESP; files of people are not touched.
func TestWhatFsckFoundIsRemoved(t *testing.T) {
	one, two := newSystem("v1"), newSystem("v2")
	m := flashed(t, one)
	for _, name := range []string{"FSCK0000.REC", "fsck0017.rec", "config.yaml", "FSCK.REC", "EFI/FSCK0000.REC"} {
		m.files[name] = newBlob([]byte("x"))
	}
	must(t, m.run(t, two, upgradeTo(two), one.Config.RootHash))
	var left []string
	for name := range m.files {
		if strings.Contains(strings.ToUpper(name), "FSCK") || name == "config.yaml" {
			left = append(left, name)
		}
	}
	slices.Sort(left)
	if got := strings.Join(left, " "); got != "EFI/FSCK0000.REC FSCK.REC config.yaml" {
		t.Errorf("left %s", got)
	}
}

func TestRecords(t *testing.T) {
	m := flashed(t, newSystem("v1"))
	if r, err := ReadRecords(onESP{&machine{files: map[string]*blob{}}}); err != nil || !reflect.DeepEqual(r, Records{}) {
		t.Errorf("no file: %+v, %v", r, err)
	}
	// As a disk is made: without padding.
	m.files[recordsFile].seen = []byte(`{"slots": {"a": {"digest": "sha256:1", "version": "v0", "root_hash": "` + hashA + `", "generation": 1}}}` + "\n")
	if r, err := ReadRecords(onESP{m}); err != nil || r.A == nil || r.A.Version != "v0" || r.A.RootHash != hashA {
		t.Errorf("as flashed: %+v, %v", r, err)
	}
	m.files[recordsFile].seen = []byte("{torn")
	if r, err := ReadRecords(onESP{m}); err != nil || r.A == nil || r.A.Version != "v1" {
		t.Errorf("the spare copy: %+v, %v", r, err)
	}
	m.files[recordsSpare].seen = nil
	if r, err := ReadRecords(onESP{m}); err != nil || !reflect.DeepEqual(r, Records{}) {
		t.Errorf("both torn: %+v, %v", r, err)
	}
	if _, err := EncodeRecords(Records{A: &Record{Image: strings.Repeat("x", recordsSize)}}); err == nil {
		t.Error("records that do not fit were encoded")
	}
}

// The installer's source: what runs from one disk is copied to another.
func TestMedium(t *testing.T) {
	one := newSystem("v1")
	medium := flashed(t, one)
	src, rel, err := OpenMedium(onDisk{medium}, onESP{medium}, one.Config.RootHash)
	must(t, err)
	if rel.Config.Version != "v1" || rel.Config.Arch != "amd64" || rel.Pieces[Root].Size != one.Pieces[Root].Size || rel.Pieces[Verity].Size != one.Pieces[Verity].Size {
		t.Errorf("got %+v", rel)
	}
	fresh := &machine{disk: newBlob(slotstest.Disk()), files: map[string]*blob{}, made: map[string]*blob{}, gone: map[string]*blob{}}
	p, err := PlanInstall(fresh.facts(t, ""), rel)
	must(t, err)
	w := &Writer{Disk: onDisk{fresh}, ESP: onESP{fresh}, Source: src, Release: rel}
	must(t, w.Run(t.Context(), p))
	if got, err := fresh.boot([]system{one}, nil); err != nil || got != one.Config.RootHash {
		t.Errorf("boots %.8s, %v", got, err)
	}
	if _, ok := fresh.files[entriesDir+"/kairos-000001.efi"]; !ok {
		t.Error("the UKI has another name")
	}
	if _, _, err := OpenMedium(onDisk{medium}, onESP{medium}, hashC); !errors.Is(err, ErrLayout) {
		t.Errorf("another system: %v", err)
	}
}

func TestReadUKI(t *testing.T) {
	good := slotstest.UKI("arm64", "gpt roothash="+hashA+"\n", 4096)
	if u, err := ReadUKI(bytes.NewReader(good)); err != nil || u.Arch != "arm64" || u.RootHash != hashA {
		t.Errorf("got %+v, %v", u, err)
	}
	for _, tc := range []struct {
		name string
		edit func([]byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"first sector not written", func(b []byte) []byte { clear(b[:sectorSize]); return b }},
		{"no PE header", func(b []byte) []byte { b[128] = 'X'; return b }},
		{"header past the end", func(b []byte) []byte { b[63] = 0xff; return b }},
		{"sections past the end", func(b []byte) []byte { b[148], b[149] = 0xff, 0xff; return b }},
		{"too many sections", func(b []byte) []byte { b[134] = maxSections + 1; return b }},
		{"no command line", func(b []byte) []byte { copy(b[128+24+240+40:], ".cmdlinX"); return b }},
		{"command line past the end", func(b []byte) []byte { b[128+24+240+40+23] = 0xff; return b }},
		{"command line without end", func(b []byte) []byte {
			copy(b[128+24+240+40+8:], "\xff\xff\xff\x00")
			copy(b[128+24+240+40+16:], "\xff\xff\xff\x00")
			return b
		}},
	} {
		if u, err := ReadUKI(bytes.NewReader(tc.edit(bytes.Clone(good)))); !errors.Is(err, errNotUKI) {
			t.Errorf("%s: %+v, %v", tc.name, u, err)
		}
	}
}

func FuzzReadUKI(f *testing.F) {
	f.Add(slotstest.UKI("amd64", "roothash="+hashA, 2048))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if u, err := ReadUKI(bytes.NewReader(raw)); err == nil && len(u.RootHash) > maxCmdline {
			t.Errorf("%d", len(u.RootHash))
		}
	})
}

// A file that is in the way is not overwritten and not removed.
func TestForeignFileInTheWay(t *testing.T) {
	one, two := newSystem("v1"), newSystem("v2")
	m := flashed(t, one)
	p, err := PlanUpgrade(m.facts(t, one.Config.RootHash), two.Release)
	must(t, err)
	m.files[entriesDir+"/kairos-000002+3.efi"] = newBlob([]byte("mine"))
	if err := m.writer(two).Run(t.Context(), p); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if got := string(m.files[entriesDir+"/kairos-000002+3.efi"].seen); got != "mine" {
		t.Errorf("it is %q", got)
	}
}
