package disk

import (
	"bytes"
	"strconv"
	"testing"
	"testing/fstest"
)

func TestArchive(t *testing.T) {
	tree := fstest.MapFS{
		"usr/lib/b.conf": {Data: []byte("12345")},
		"usr/a.sh":       {Data: []byte("#!/bin/sh\n")},
	}
	data, err := archive(tree)
	if err != nil {
		t.Fatal(err)
	}
	type file struct {
		name, content string
		mode          uint64
	}
	want := []file{
		{"usr", "", 0o040755}, {"usr/a.sh", "#!/bin/sh\n", 0o100755},
		{"usr/lib", "", 0o040755}, {"usr/lib/b.conf", "12345", 0o100644}, {"TRAILER!!!", "", 0},
	}
	for _, w := range want {
		field := func(i int) uint64 {
			n, err := strconv.ParseUint(string(data[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if string(data[:6]) != "070701" {
			t.Fatalf("before %s: not a header: %q", w.name, data[:6])
		}
		name, size := int(field(11)), int(field(6))
		body := (110 + name + 3) &^ 3
		got := file{string(bytes.TrimRight(data[110:110+name], "\x00")), string(data[body : body+size]), field(1)}
		if got != w {
			t.Errorf("got %+v, want %+v", got, w)
		}
		if mtime := field(5); mtime != 0 {
			t.Errorf("%s has a time: %d", w.name, mtime)
		}
		data = data[(body+size+3)&^3:]
	}
	if len(data) != 0 {
		t.Errorf("%d bytes follow the trailer", len(data))
	}
}
