package wire

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

// Records of a later version say more than this one knows. It reads what it knows,
// keeps the rest byte for byte, and refuses only what its author marked as critical.
// Before records were made of fields, every unknown one made a record unreadable.
func TestOpenKeepsWhatItDoesNotKnow(t *testing.T) {
	key := testKey(t, 1)
	known := fullRecord(key.ID())
	body := appendBody(nil, known)
	for _, c := range []struct {
		name    string
		planted []byte
		want    error
	}{
		{"the next tag", tlv(tagLast+1, []byte("new")), nil},
		{"an empty field", tlv(0x70), nil},
		{"several fields", slices.Concat(tlv(20, []byte{0}), tlv(21, bytes.Repeat([]byte{7}, 1000)), tlv(0x7f, []byte("x"))), nil},
		{"critical", tlv(0x80, []byte("new")), ErrVersion},
		{"critical and empty", tlv(0xff), ErrVersion},
		{"critical after one that is not", slices.Concat(tlv(20, []byte("new")), tlv(0x90)), ErrVersion},
		{"the same tag twice", slices.Concat(tlv(20, []byte("a")), tlv(20, []byte("b"))), ErrMalformed},
		{"descending", slices.Concat(tlv(21, []byte("a")), tlv(20, []byte("b"))), ErrMalformed},
		{"cut in its header", []byte{20, 0}, ErrMalformed},
		{"cut in its value", []byte{20, 0, 2, 1}, ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rawSeal(t, key, slices.Concat(body, c.planted))
			r, err := Open(s)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil {
				return
			}
			want := known
			want.Seq, want.Unknown = r.Seq, c.planted
			if !reflect.DeepEqual(r, want) {
				t.Errorf("got %+v, want %+v", r, want)
			}
			if again := seal(t, key, r); !bytes.Equal(again, s) {
				t.Error("sealing it again lost something")
			}
			r.Unknown = nil
			if r.Same(want) {
				t.Error("records that differ in an unknown field are the same")
			}
		})
	}
}

// Same compares every field, also those that a later version of this code adds.
func TestSameSeesEveryField(t *testing.T) {
	full := fullRecord(testKey(t, 1).ID())
	full.Left, full.Unknown = true, tlv(20, []byte("new"))
	for i := range reflect.TypeFor[Record]().NumField() {
		name := reflect.TypeFor[Record]().Field(i).Name
		other := full
		f := reflect.ValueOf(&other).Elem().Field(i)
		if f.IsZero() {
			t.Errorf("%s: the full record is not full", name)
		}
		f.SetZero()
		if same, want := full.Same(other), name == "ID" || name == "Seq"; same != want {
			t.Errorf("%s: same is %v, want %v", name, same, want)
		}
	}
	if !full.Same(fullRecordWithUnknown(full)) {
		t.Error("a record differs from its copy")
	}
	if (Record{}).Same(full) || !(Record{ID: identity.ID{1}}).Same(Record{Seq: 2}) {
		t.Error("author and number count")
	}
}

// fullRecordWithUnknown is r with memory of its own.
func fullRecordWithUnknown(r Record) Record {
	r.Unknown, r.Credential, r.Underlay = bytes.Clone(r.Unknown), bytes.Clone(r.Credential), slices.Clone(r.Underlay)
	return r
}
