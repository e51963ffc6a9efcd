package poll

import (
	"bytes"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestVectors: whatever adjoins shares an entry, and the entries hold the same bytes.
func TestVectors(t *testing.T) {
	room := []byte("the first, the second, the third and the last")
	other := []byte("elsewhere")
	for name, c := range map[string]struct {
		parts [][]byte
		want  int
	}{
		"none":               {nil, 0},
		"empty":              {[][]byte{nil, {}}, 0},
		"one":                {[][]byte{room}, 1},
		"adjoining":          {[][]byte{room[:9], room[9:21], room[21:]}, 1},
		"a gap":              {[][]byte{room[:9], room[10:21]}, 2},
		"overlapping":        {[][]byte{room[:9], room[8:21]}, 2},
		"the wrong way":      {[][]byte{room[9:21], room[:9]}, 2},
		"elsewhere, between": {[][]byte{room[:9], other, room[9:]}, 3},
		"empty, between":     {[][]byte{room[:9], room[20:20], room[9:]}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			vectors := make([]unix.Iovec, len(c.parts))
			n := Vectors(vectors, c.parts)
			var got []byte
			for _, v := range vectors[:n] {
				got = append(got, unsafe.Slice(v.Base, int(v.Len))...)
			}
			if n != c.want || !bytes.Equal(got, bytes.Join(c.parts, nil)) {
				t.Errorf("%d entries with %q, want %d", n, got, c.want)
			}
		})
	}
}
