package token

import "errors"

// Why a text is not a token; Parse returns them wrapped, and each tells a
// person what to do next. None of them quotes the text.
var (
	// ErrEmpty is for a text of nothing but white space.
	ErrEmpty = errors.New("the network token is empty: make one with `kairos generate-token` and use it on every machine")
	// ErrTruncated is for a token whose beginning or end is missing.
	ErrTruncated = errors.New("the network token was cut: copy the whole line that `kairos generate-token` printed")
	// ErrTypo is for a token of which some character changed.
	ErrTypo = errors.New("the network token was mistyped: copy it again from where it was printed")
	// ErrVersion is for a token of another version of the format, or with a part that
	// this version must not pass over.
	ErrVersion = errors.New("the network token has another version than this kairos knows: use the kairos that made it, or make a new token for all machines")
	// ErrFormat is for a text that never was one of our tokens.
	ErrFormat = errors.New("this is not a network token: one starts with KAIROS2-; make it with `kairos generate-token`")

	// ErrNodes is returned, wrapped, for a node count that Generate refuses.
	ErrNodes = errors.New("the number of nodes must be from 1 to 15")
	// ErrPeers is returned, wrapped, for addresses that WithPeers refuses.
	ErrPeers = errors.New("not addresses for a network token: write at most 8, host:port each, 240 characters together")
)
