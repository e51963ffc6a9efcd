package wire

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// validate checks what both sides demand of a record, beyond its form.
func (r Record) validate() error {
	if !validName(r.Name) {
		return fmt.Errorf("name: not a DNS label: %w", ErrMalformed)
	}
	if !validName(r.Kind) || len(r.Kind) > MaxKind {
		return fmt.Errorf("kind: not a word: %w", ErrMalformed)
	}
	if err := checkText("network id", r.NetworkID, MaxNetworkID); err != nil {
		return err
	}
	if err := checkText("version", r.Version, MaxVersion); err != nil {
		return err
	}
	if err := r.validateAddrs(); err != nil {
		return err
	}
	if len(r.Credential) > MaxCredential {
		return fmt.Errorf("credential: %d bytes instead of at most %d: %w", len(r.Credential), MaxCredential, ErrLimit)
	}
	if err := ValidateAnnotations(r.Annotations); err != nil {
		return err
	}
	return validateUnknown(r.Unknown)
}

// validateUnknown admits whole fields that this version may pass on without knowing them.
func validateUnknown(unknown []byte) error {
	if len(unknown) > MaxRecord {
		return fmt.Errorf("unknown fields: %d bytes: %w", len(unknown), ErrLimit)
	}
	return eachField(unknown, func(tag byte, _ []byte) error {
		if tag <= tagLast || tag&tagCritical != 0 {
			return fmt.Errorf("not one to pass on: %w", ErrMalformed)
		}
		return nil
	})
}

func (r Record) validateAddrs() error {
	switch {
	case len(r.Addrs) > MaxAddrs:
		return fmt.Errorf("%d addresses: %w", len(r.Addrs), ErrLimit)
	case len(r.Underlay) > MaxUnderlay:
		return fmt.Errorf("%d underlay addresses: %w", len(r.Underlay), ErrLimit)
	case len(r.Prefixes) > MaxPrefixes:
		return fmt.Errorf("%d prefixes: %w", len(r.Prefixes), ErrLimit)
	}
	for _, a := range r.Addrs {
		if !validAddr(a) {
			return fmt.Errorf("address: %w", ErrMalformed)
		}
	}
	for _, u := range r.Underlay {
		if !ValidUnderlay(u) {
			return fmt.Errorf("underlay address: %w", ErrMalformed)
		}
	}
	for _, p := range r.Prefixes {
		if !p.IsValid() || !validAddr(p.Addr()) || p != p.Masked() {
			return fmt.Errorf("prefix: %w", ErrMalformed)
		}
	}
	return nil
}

// ValidateAnnotations reports why a record with these annotations would be
// refused: too many (ErrLimit), too long (ErrLimit), or not one line of
// printable UTF-8 (ErrMalformed).
func ValidateAnnotations(annotations map[string]string) error {
	if len(annotations) > MaxAnnotations {
		return fmt.Errorf("%d annotations instead of at most %d: %w", len(annotations), MaxAnnotations, ErrLimit)
	}
	for key, value := range annotations {
		if key == "" {
			return fmt.Errorf("annotation without a name: %w", ErrMalformed)
		}
		if err := checkText("annotation name", key, MaxAnnotationKey); err != nil {
			return err
		}
		if err := checkText("annotation "+key, value, MaxAnnotationValue); err != nil {
			return err
		}
	}
	return nil
}

// Clean makes any text fit for an annotation: what cannot be printed becomes a
// space, and what is beyond limit bytes is cut at a character.
func Clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	cut := max(limit, 0)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// checkText admits only printable characters: these texts end up on terminals,
// where control and bidirectional characters could tell lies.
func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s: %d bytes instead of at most %d: %w", what, len(s), limit, ErrLimit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s: not UTF-8: %w", what, ErrMalformed)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s: character %U cannot be printed: %w", what, r, ErrMalformed)
		}
	}
	return nil
}

// validName reports whether s is one DNS label in lower case (RFC 1035 section
// 2.3.1, with a digit in front allowed by RFC 1123).
func validName(s string) bool {
	if len(s) == 0 || len(s) > MaxName || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// ValidUnderlay reports whether a record may name a as an address to dial: an address
// with a port, not an IPv4 address in IPv6's clothes, and without a zone. A zone means
// something on the machine that said it only, and is free text.
func ValidUnderlay(a netip.AddrPort) bool { return validAddr(a.Addr()) && a.Port() != 0 }

func validAddr(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6()
}
