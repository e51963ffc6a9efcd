package seed

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func testImage(name, d string) Image {
	return Image{Name: name, Digest: d, Size: 500, Manifest: d, ManifestSize: 500, Total: 10_000, Arch: "amd64", Use: ForPods}
}

func TestIndexEncode(t *testing.T) {
	a, b := testImage("r/a:1", digest("1")), testImage("r/b:1", digest("2"))
	one, tag, err := Index{Images: []Image{a, b}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	two, tag2, err := Index{Images: []Image{b, a}}.Encode()
	if err != nil || string(one) != string(two) || tag != tag2 {
		t.Errorf("the order of the images shows: %v\n%s\n%s", err, one, two)
	}
	back, err := parseIndex(one)
	if err != nil || len(back.Images) != 2 || !reflect.DeepEqual(back.Images[0], a) {
		t.Errorf("read back: %+v, %v", back, err)
	}
	if raw, tag, err := (Index{}).Encode(); raw != nil || tag != "" || err != nil {
		t.Errorf("of nothing: %q, %q, %v", raw, tag, err)
	}
	a.Total = -1
	if _, _, err := (Index{Images: []Image{a}}).Encode(); err == nil {
		t.Error("wrote what nobody would read")
	}
}

func TestParseIndexRefuses(t *testing.T) {
	change := func(f func(*Image)) string {
		img := testImage("r/a:1", digest("1"))
		f(&img)
		raw, err := json.Marshal(Index{Images: []Image{img}})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	many, err := json.Marshal(Index{Images: make([]Image, maxImages+1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseIndex([]byte(change(func(*Image) {}))); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	for name, raw := range map[string]string{
		"no JSON":               "{",
		"many images":           string(many),
		"many bytes":            strings.Repeat(" ", maxIndex+1),
		"a name with a newline": change(func(i *Image) { i.Name = "r/a:1\nx" }),
		"a long name":           change(func(i *Image) { i.Name = strings.Repeat("a", maxName+1) }),
		"a short digest":        change(func(i *Image) { i.Digest = "sha256:12" }),
		"a path for a digest": change(func(i *Image) {
			i.Manifest = "sha256:../../../../../../../../../../../../../../etc/shadow1111111111111"
		}),
		"another hash":      change(func(i *Image) { i.Digest = "sha512:" + strings.Repeat("1", 64) }),
		"upper case":        change(func(i *Image) { i.Digest = digest("A") }),
		"a huge manifest":   change(func(i *Image) { i.ManifestSize = maxSize + 1 }),
		"an empty manifest": change(func(i *Image) { i.Size = 0 }),
		"a huge image":      change(func(i *Image) { i.Total = maxTotal + 1 }),
		"less than nothing": change(func(i *Image) { i.Total = -1 }),
		"no platform":       change(func(i *Image) { i.Arch = "" }),
		"another use":       change(func(i *Image) { i.Use = "root" }),
	} {
		if _, err := parseIndex([]byte(raw)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzParseIndex feeds what another machine may answer: what is accepted can be written again.
func FuzzParseIndex(f *testing.F) {
	raw, _, err := Index{Images: []Image{testImage("r/a:1", digest("1"))}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"images":[{}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := parseIndex(raw)
		if err != nil {
			return
		}
		if _, _, err := x.Encode(); err != nil {
			t.Errorf("accepted %q and cannot write it: %v", raw, err)
		}
	})
}
