package token

import "regexp"

// looksLikeToken is a token of any version, or another secret of this family with a
// letter after the version, whole or cut, in any case. Twenty characters keep it from
// taking a machine's name for one, and are no use alone.
var looksLikeToken = regexp.MustCompile(`(?i)kairos[0-9]+[a-z]?-[0-9a-z]{20,}`)

// Hide replaces what looks like a network token in a text for people or logs.
// It is for messages that quote input: a token may have been put in a wrong
// place of a file or of a command line.
func Hide(s string) string {
	return looksLikeToken.ReplaceAllLiteralString(s, "[network token]")
}
