package seed

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func id(b byte) (out identity.ID) {
	out[0] = b
	return out
}

func TestChoose(t *testing.T) {
	type word struct {
		digest        string
		baked, server bool
	}
	one, two := digest("1"), digest("2")
	for _, tc := range []struct {
		name  string
		words []word
		want  string
		err   error
	}{
		{"nobody", nil, "", ErrNobody},
		{"one member", []word{{one, false, false}}, one, nil},
		{"all agree", []word{{one, true, false}, {one, false, false}, {one, false, true}}, one, nil},
		{"they differ", []word{{one, false, false}, {two, false, false}}, "", ErrDisagree},
		{"the OS images count before what was copied", []word{{one, true, false}, {two, false, false}, {two, false, false}}, one, nil},
		{"the OS images differ", []word{{one, true, false}, {two, true, false}}, "", ErrDisagree},
		{"the OS images differ: the server decides", []word{{one, true, false}, {two, true, true}, {one, true, false}}, two, nil},
		{"copies differ: the server decides", []word{{one, false, true}, {two, false, false}}, one, nil},
		{"a server's copy is no match for OS images that differ", []word{{one, true, false}, {two, true, false}, {one, false, true}}, "", ErrDisagree},
		{"two servers differ", []word{{one, true, true}, {two, true, true}}, "", ErrDisagree},
		{"many honest ones and a liar", []word{{one, true, false}, {one, true, false}, {one, true, false}, {two, true, false}}, "", ErrDisagree},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var claims []claim
			for i, w := range tc.words {
				claims = append(claims, claim{by: Member{ID: id(byte(i)), Name: "n" + string(rune('0'+i)), Server: w.server}, Image: Image{Name: "r/a:1", Digest: w.digest, Baked: w.baked}})
			}
			got, err := choose(claims)
			if got.Digest != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("got %s, %v; want %s, %v", got.Digest, err, tc.want, tc.err)
			}
			if errors.Is(err, ErrDisagree) && (!strings.Contains(err.Error(), "r/a:1") || !strings.Contains(err.Error(), "n0 has sha256:1")) {
				t.Errorf("it does not say who says what: %v", err)
			}
		})
	}
}

func names(list []Member) string {
	var out []string
	for _, m := range list {
		out = append(out, m.Name)
	}
	return strings.Join(out, " ")
}

func TestOrder(t *testing.T) {
	ms := time.Millisecond
	members := []Member{{ID: id(1), Name: "far", RTT: 80 * ms}, {ID: id(2), Name: "here", RTT: ms}, {ID: id(3), Name: "farther", RTT: 90 * ms}}
	calm := func(identity.ID) bool { return false }
	if got := names(order(id(9), digest("1"), members, calm)); !strings.HasPrefix(got, "here ") {
		t.Errorf("the near one is not first: %s", got)
	}
	if got := names(order(id(9), digest("1"), members, func(i identity.ID) bool { return i == id(2) })); !strings.HasSuffix(got, " here") {
		t.Errorf("the one that broke off is not last: %s", got)
	}
	if got := order(id(9), digest("1"), nil, calm); got != nil {
		t.Errorf("of nobody: %v", got)
	}
	// Equals are taken in another order by each machine and for each blob, and in
	// the same one when asked again.
	var equals []Member
	for i := range byte(4) {
		equals = append(equals, Member{ID: id(i), Name: string(rune('a' + i)), RTT: ms})
	}
	first := map[string]int{}
	for machine := range byte(20) {
		for _, blob := range "0123456789" {
			got := names(order(id(100+machine), digest(string(blob)), equals, calm))
			if again := names(order(id(100+machine), digest(string(blob)), equals, calm)); again != got {
				t.Fatalf("%s and then %s", got, again)
			}
			first[got[:1]]++
		}
	}
	for _, m := range equals {
		if n := first[m.Name]; n < 25 || n > 80 { // 50 of 200 each, on average
			t.Errorf("of 200 transfers %d went to %s first", n, m.Name)
		}
	}
}
