package images

import (
	"errors"
	"strings"
	"testing"
)

// An image that would fill the disk is not copied, and the reason is one to read.
func TestRoomForImages(t *testing.T) {
	const gib = 1 << 30
	for _, tc := range []struct {
		name       string
		free, size uint64
		err        error
		image      int64
		word       string
	}{
		{"plenty", 50 * gib, 100 * gib, nil, gib, ""},
		{"just enough: three times the image, and what stays free", 9 * gib, 100 * gib, nil, gib, ""},
		{"a little less", 9*gib - 1, 100 * gib, nil, gib, "MB of free disk space are too few, it takes 9216 MB"},
		{"a full disk", 0, 100 * gib, nil, 1, "0 MB of free"},
		{"a disk that does not answer", 0, 0, errors.New("input/output error"), 1, "input/output error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &Seeder{disk: func() (uint64, uint64, error) { return tc.free, tc.size, tc.err }}
			err := s.room(tc.image)
			if (err == nil) != (tc.word == "") || err != nil && !strings.Contains(err.Error(), tc.word) {
				t.Errorf("got %v, want %q", err, tc.word)
			}
		})
	}
}
