package keepjson

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
)

type inner struct {
	A int          `json:"a"`
	P netip.Prefix `json:"p,omitzero"`
}

type embedded struct {
	E string `json:"e,omitempty"`
}

type file struct {
	embedded
	Version int
	Name    string          `json:"name,omitempty"`
	In      inner           `json:"in"`
	Ptr     *inner          `json:"ptr,omitempty"`
	Hidden  string          `json:"-"`
	Raw     json.RawMessage `json:"raw,omitempty"`
	List    []inner         `json:"list,omitempty"`
	private int
}

// What was planted comes out again, at whatever depth, and what this version changed or
// took away stays so.
func TestUnknownFieldsStay(t *testing.T) {
	const in = `{"e": "x", "version": 1, "NAME": "n", "name2": "new", "Hidden": 1, "private": 2, "new": {"a": [1, 2.50, 1e400]},
		"in": {"a": 1, "b": {"c": null}, "p": "10.0.0.0/8"}, "ptr": {"a": 2, "b": true}, "raw": {"x": 1}, "list": [{"a": 1, "b": 2}]}`
	for _, c := range []struct {
		name   string
		change func(*file)
		want   string
	}{
		{"nothing", func(*file) {}, `{"Version": 1, "e": "x", "name": "n", "name2": "new", "Hidden": 1, "private": 2, "new": {"a": [1, 2.50, 1e400]},
			"in": {"a": 1, "b": {"c": null}, "p": "10.0.0.0/8"}, "ptr": {"a": 2, "b": true}, "raw": {"x": 1}, "list": [{"a": 1}]}`},
		{"values", func(f *file) { f.Version, f.In.A, f.Name = 2, 7, "" }, `{"Version": 2, "e": "x", "name2": "new", "Hidden": 1, "private": 2, "new": {"a": [1, 2.50, 1e400]},
			"in": {"a": 7, "b": {"c": null}, "p": "10.0.0.0/8"}, "ptr": {"a": 2, "b": true}, "raw": {"x": 1}, "list": [{"a": 1}]}`},
		{"an object that went", func(f *file) { f.Ptr, f.List, f.Raw = nil, nil, nil }, `{"Version": 1, "e": "x", "name": "n", "name2": "new", "Hidden": 1, "private": 2, "new": {"a": [1, 2.50, 1e400]},
			"in": {"a": 1, "b": {"c": null}, "p": "10.0.0.0/8"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f file
			u, err := Unmarshal([]byte(in), &f)
			if err != nil || f.Version != 1 || f.Name != "n" || f.Ptr.A != 2 {
				t.Fatalf("%+v, %v", f, err)
			}
			c.change(&f)
			out, err := Marshal(f, u)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(members(t, out), members(t, []byte(c.want))) {
				t.Errorf("got %s\nwant %s", out, c.want)
			}
			var again file
			v, err := Unmarshal(out, &again)
			if err != nil {
				t.Fatal(err)
			}
			if twice, err := Marshal(again, v); err != nil || string(twice) != string(out) {
				t.Errorf("a second round differs: %s, %v", twice, err)
			}
		})
	}
}

// members decodes without touching numbers.
func members(t *testing.T, raw []byte) (out any) {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	all := map[string]any{}
	for name, value := range m {
		all[name] = members(t, value)
	}
	return all
}

func TestNothingUnknown(t *testing.T) {
	for _, in := range []string{`{}`, `{"Version":3,"in":{"a":1}}`, `null`, `{"in":null,"ptr":null}`} {
		var f file
		u, err := Unmarshal([]byte(in), &f)
		if err != nil || !u.IsZero() {
			t.Errorf("%s: %+v, %v", in, u, err)
		}
		want, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Marshal(f, u); err != nil || string(got) != string(want) {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	for _, in := range []string{``, `[]`, `{"in": 3}`, `{"a": 1`, `{} {}`} {
		if _, err := Unmarshal([]byte(in), &file{}); err == nil {
			t.Errorf("%q was read", in)
		}
	}
	if _, err := Marshal(func() {}, Unknown{}); err == nil {
		t.Error("a function became JSON")
	}
}

// A later version of this program that knows a field decides about it.
func TestKnownByNow(t *testing.T) {
	u, err := Unmarshal([]byte(`{"name": "old", "in": {"a": 1}}`), &struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := Marshal(file{Name: "new"}, u)
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := json.Unmarshal(out, &f); err != nil || f.Name != "new" || f.In.A != 0 {
		t.Errorf("%s, %v", out, err)
	}
}
