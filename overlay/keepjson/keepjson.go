// Package keepjson reads and writes files of JSON that a later version may have written
// more into: what this version does not know comes out as it went in. A machine that goes
// back to an earlier version, and forward again, has lost nothing.
//
// The rule for such a file: whoever adds a field does not change the file's version, and
// an older program keeps the field without knowing it. A new version number is for a
// change of what is there already, and makes older programs refuse the file.
package keepjson

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Unknown are the members of an object, and of the objects in it, for which a struct had
// no field. What is in lists is not among them: a list is written as a whole by whoever
// writes it. The zero value is none. It is never modified, and so may be copied.
type Unknown struct {
	own map[string]json.RawMessage
	in  map[string]Unknown // of objects that the struct has a field for
}

// IsZero reports whether there is nothing unknown.
func (u Unknown) IsZero() bool { return len(u.own) == 0 && len(u.in) == 0 }

// Unmarshal is json.Unmarshal of an object into *v, which is a struct, and returns what
// has no place in it.
func Unmarshal(raw []byte, v any) (Unknown, error) {
	if err := json.Unmarshal(raw, v); err != nil {
		return Unknown{}, err
	}
	u, err := collect(raw, reflect.TypeOf(v))
	if err != nil {
		return Unknown{}, fmt.Errorf("keep unknown fields: %w", err)
	}
	return u, nil
}

// Marshal is json.Marshal of a struct with what is unknown in the places that it came
// from. Where the struct says something itself, or has no such object any more, the
// struct is right.
func Marshal(v any, u Unknown) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil || u.IsZero() {
		return raw, err
	}
	return merge(raw, u)
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func collect(raw json.RawMessage, t reflect.Type) (u Unknown, err error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if p := reflect.PointerTo(t); t.Kind() != reflect.Struct || p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		return u, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return u, err
	}
	known := fieldsOf(t)
	for name, value := range members {
		f, ok := find(known, name)
		if !ok {
			u.own = put(u.own, name, value)
			continue
		}
		inner, err := collect(value, f.of)
		if err != nil {
			return u, err
		}
		if !inner.IsZero() {
			u.in = put(u.in, f.name, inner)
		}
	}
	return u, nil
}

func put[V any](m map[string]V, name string, v V) map[string]V {
	if m == nil {
		m = make(map[string]V)
	}
	m[name] = v
	return m
}

func merge(raw json.RawMessage, u Unknown) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, fmt.Errorf("merge unknown fields: %w", err)
	}
	if members == nil { // null: there is no such object any more
		return raw, nil
	}
	for name, inner := range u.in {
		value, ok := members[name]
		if !ok {
			continue
		}
		merged, err := merge(value, inner)
		if err != nil {
			return nil, err
		}
		members[name] = merged
	}
	for name, value := range u.own {
		if _, said := members[name]; !said {
			members[name] = value
		}
	}
	return json.Marshal(members)
}

// field is what a member of an object goes into.
type field struct {
	name string
	of   reflect.Type
}

// fieldsOf are the fields of a struct under the names that encoding/json gives them.
func fieldsOf(t reflect.Type) (out []field) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("json")
		name, _, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-":
		case f.Anonymous && name == "":
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				out = append(out, fieldsOf(inner)...)
			}
		case !f.IsExported():
		case !tagged || name == "":
			out = append(out, field{f.Name, f.Type})
		default:
			out = append(out, field{name, f.Type})
		}
	}
	return out
}

// find returns the field that encoding/json fills from a member of this name: it does
// not care for case.
func find(known []field, name string) (field, bool) {
	for _, f := range known {
		if strings.EqualFold(f.name, name) {
			return f, true
		}
	}
	return field{}, false
}
