package token

import (
	"crypto/rand"
	"strings"
	"testing"
)

func TestHide(t *testing.T) {
	tok, err := Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	text := tok.Reveal()
	for _, s := range []string{text, strings.ToLower(text), text + "A", text[:40], strings.Replace(text, "2-", "12-", 1), strings.Replace(text, "2-", "2T-", 1), strings.Replace(text, "2-", "1-", 1)} {
		if got := Hide("kairos.role: \"" + s + "...\" is not one of"); got != `kairos.role: "[network token]..." is not one of` {
			t.Errorf("%s became %s", s, got)
		}
	}
	for _, s := range []string{"", "kairos1-abcdef", "kairos0", "kairos1-production-abcdef.kairos.internal", "KAIROS1-"} {
		if got := Hide(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}
