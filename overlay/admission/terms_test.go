package admission

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
)

func TestTerms(t *testing.T) {
	for _, tc := range []struct {
		name  string
		terms Terms
		join  []byte
	}{
		{"a run alone", Terms{Run: Run{1}}, nil},
		{"a zero run", Terms{}, nil},
		{"a join credential", Terms{Run: Run{1}}, bytes.Repeat([]byte{7}, 32)},
		{"everything", Terms{
			Run: Run{1}, Features: 1<<63 | 1, Digest: [32]byte{3},
			Credentials: []Credential{{CredentialEnrolment, bytes.Repeat([]byte{8}, 512)}, {CredentialTicket, []byte{}}, {200, []byte{9}}},
		}, bytes.Repeat([]byte{7}, 32)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw, err := tc.terms.encode(tc.join)
			if err != nil || len(raw) != TermsSize {
				t.Fatalf("%d bytes (%v), want %d whatever is in them", len(raw), err, TermsSize)
			}
			got, join, err := parseTerms(raw)
			if err != nil || !reflect.DeepEqual(got, tc.terms) || !bytes.Equal(join, tc.join) {
				t.Errorf("read %+v with join %x (%v), want %+v with %x", got, join, err, tc.terms, tc.join)
			}
		})
	}
}

func TestTermsThatDoNotFit(t *testing.T) {
	for name, list := range map[string][]Credential{
		"one that is too long": {{CredentialEnrolment, make([]byte, 1<<16)}},
		"too many":             {{CredentialEnrolment, make([]byte, 600)}, {CredentialTicket, make([]byte, 400)}},
		"a forged join":        {{CredentialJoin, make([]byte, 32)}},
		"twice":                {{CredentialTicket, nil}, {CredentialTicket, nil}},
	} {
		if _, err := (Terms{Credentials: list}).encode(nil); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

// What a later version says is passed over, unless it says that it may not be.
func TestUnknownTerms(t *testing.T) {
	run := slices.Clip(appendField(nil, tagRun, make([]byte, runSize)))
	for _, tc := range []struct {
		name string
		raw  []byte
		ok   bool
	}{
		{"nothing unknown", run, true},
		{"an unknown field", appendField(run, 0x7f, []byte("later")), true},
		{"an unknown critical field", appendField(run, 0x80, nil), false},
		{"longer features", appendField(run, tagFeatures, make([]byte, 20)), true},
		{"shorter features", appendField(run, tagFeatures, []byte{1}), true},
		{"padding", append(bytes.Clone(run), make([]byte, 100)...), true},
		{"no run", appendField(nil, tagFeatures, []byte{1}), false},
		{"a short run", appendField(nil, tagRun, make([]byte, 15)), false},
		{"a short digest", appendField(run, tagDigest, make([]byte, 31)), false},
		{"fields out of order", appendField(appendField(bytes.Clone(run), 9, nil), 8, nil), false},
		{"a field twice", append(bytes.Clone(run), run...), false},
		{"a cut head", append(bytes.Clone(run), 9, 0), false},
		{"a cut value", append(bytes.Clone(run), 9, 0, 2, 1), false},
		{"credentials out of order", appendField(run, tagCredentials, appendField(appendField(nil, 3, nil), 2, nil)), false},
		{"cut credentials", appendField(run, tagCredentials, []byte{1, 0, 32}), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, err := parseTerms(tc.raw); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrTerms) {
				t.Errorf("error %v, want one: %v", err, !tc.ok)
			}
		})
	}
}

// FuzzTerms checks that no terms do harm, and that what is understood is said the same
// way again.
func FuzzTerms(f *testing.F) {
	good, err := Terms{Run: Run{1}, Features: 5, Credentials: []Credential{{CredentialTicket, []byte{1}}}}.encode(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		terms, join, err := parseTerms(raw)
		if err != nil {
			return
		}
		again, err := terms.encode(join)
		if err != nil {
			return // longer than this version's terms, or with a credential of kind 0
		}
		got, gotJoin, err := parseTerms(again)
		if err != nil || !reflect.DeepEqual(got, terms) || !bytes.Equal(join, gotJoin) {
			t.Fatalf("%+v comes back as %+v (%v)", terms, got, err)
		}
	})
}
