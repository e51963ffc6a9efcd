package slots

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/kairos-io/kairos/image/slots/slotstest"
)

func uuid(t testing.TB, text string) UUID {
	t.Helper()
	u, _, err := UUIDs(text + text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPartitions(t *testing.T) {
	img := slotstest.Disk()
	got, err := Partitions(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	want := []Partition{
		{1, "kairos-esp", uuid(t, "11111111111111111111111111111111"), 34 * 512, 8 * 512},
		{2, "kairos-root-a", uuid(t, "00112233445566778899aabbccddeeff"), 42 * 512, 128 * 512},
		{3, "kairos-verity-a", uuid(t, "ffeeddccbbaa99887766554433221100"), 170 * 512, 32 * 512},
		{4, "kairos-root-b", uuid(t, "22222222222222222222222222222222"), 202 * 512, 128 * 512},
		{5, "kairos-verity-b", uuid(t, "33333333333333333333333333333333"), 330 * 512, 32 * 512},
		{6, "kairos-data", uuid(t, "44444444444444444444444444444444"), 362 * 512, 8 * 512},
	}
	if len(got) != len(want) {
		t.Fatalf("%d partitions: %+v", len(got), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
	if s := got[1].UUID.String(); s != "00112233-4455-6677-8899-aabbccddeeff" {
		t.Errorf("a UUID reads %s", s)
	}
}

// imageFile puts a disk into a file.
func imageFile(t testing.TB, img []byte) Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, img, 0o600); err != nil {
		t.Fatal(err)
	}
	return Device{path}
}

func setIn(t *testing.T, d Device, number int, u UUID) error {
	t.Helper()
	f, err := d.Table(Write)
	if err != nil {
		t.Fatal(err)
	}
	err = setUUID(f, number, u)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return err
}

// Both copies have the new UUID, and nothing else has changed.
func TestSetUUID(t *testing.T) {
	before, want := slotstest.Disk(), uuid(t, "0123456789abcdef0123456789abcdef")
	for _, tc := range []struct {
		name   string
		damage func(img []byte)
	}{
		{"whole", func([]byte) {}},
		{"primary header torn", func(img []byte) { clear(img[512:600]) }},
		{"primary entries torn", func(img []byte) { clear(img[1024:1100]) }},
		{"backup header torn", func(img []byte) { clear(img[len(img)-512:]) }},
		{"backup entries torn", func(img []byte) { clear(img[len(img)-33*512 : len(img)-32*512]) }},
		{"backup older than the primary", func(img []byte) {
			d := imageFile(t, img)
			if err := setIn(t, d, 4, uuid(t, "55555555555555555555555555555555")); err != nil {
				t.Fatal(err)
			}
			changed, err := os.ReadFile(d.Path)
			if err != nil {
				t.Fatal(err)
			}
			copy(img[len(img)-33*512:], changed[len(img)-33*512:]) // the next change to it is what counts
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := bytes.Clone(before)
			tc.damage(img)
			d := imageFile(t, img)
			if err := setIn(t, d, 4, want); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(d.Path)
			if err != nil {
				t.Fatal(err)
			}
			for name, place := range map[string]int64{"primary": 512, "backup": int64(len(img)) - 512} {
				got, err := readTable(bytes.NewReader(after), place, 512)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if u := got.partitions()[3].UUID; u != want {
					t.Errorf("%s: %s", name, u)
				}
			}
			// With the old UUID again it is what sfdisk made, bit for bit.
			if err := setIn(t, d, 4, uuid(t, "22222222222222222222222222222222")); err != nil {
				t.Fatal(err)
			}
			again, err := os.ReadFile(d.Path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, before) {
				t.Error("something else has changed")
			}
		})
	}
}

// A disk of 4096-byte sectors has its table elsewhere.
func TestPartitionsOfLargeSectors(t *testing.T) {
	const sector = 4096
	small := slotstest.Disk()
	t1, err := readTable(bytes.NewReader(small), 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	img := make([]byte, 512*sector)
	t1.sector = sector
	t1.header = append(t1.header, make([]byte, sector-512)...)
	for _, c := range []*table{t1, t1.mirror(nil)} {
		if err := c.setUUID(2, uuid(t, "0123456789abcdef0123456789abcdef")); err != nil {
			t.Fatal(err)
		}
		copy(img[c.array():], c.entries)
		copy(img[c.at():], c.header)
	}
	clear(img[sector : 2*sector]) // the primary is torn
	got, err := Partitions(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	if p := got[1]; p.Start != 42*sector || p.Size != 128*sector || p.UUID.String() != "01234567-89ab-cdef-0123-456789abcdef" {
		t.Errorf("got %+v", p)
	}
}

func TestDisksWithoutATable(t *testing.T) {
	good := slotstest.Disk()
	for _, tc := range []struct {
		name string
		edit func(img []byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"zeros", func(img []byte) []byte { return make([]byte, len(img)) }},
		{"cut before the entries", func(img []byte) []byte { return img[:1024] }},
		{"both copies torn", func(img []byte) []byte { clear(img[1024:1100]); clear(img[len(img)-512:]); return img }},
		{"a million entries", func(img []byte) []byte {
			for _, at := range []int{512, len(img) - 512} {
				binary.LittleEndian.PutUint32(img[at+80:], 1<<20)
				binary.LittleEndian.PutUint32(img[at+16:], headerSum(img[at:at+512]))
			}
			return img
		}},
	} {
		img := tc.edit(bytes.Clone(good))
		if got, err := Partitions(bytes.NewReader(img), int64(len(img))); err == nil {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
	if err := setIn(t, imageFile(t, good), 129, UUID{}); err == nil {
		t.Error("partition 129 was changed")
	}
}

func FuzzPartitions(f *testing.F) {
	img := slotstest.Disk()
	f.Add(img[:34*512])
	f.Fuzz(func(t *testing.T, img []byte) {
		if got, err := Partitions(bytes.NewReader(img), int64(len(img))); err == nil && len(got) > maxPartitions {
			t.Errorf("%d partitions", len(got))
		}
	})
}
