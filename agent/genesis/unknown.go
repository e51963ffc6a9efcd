package genesis

import "github.com/kairos-io/kairos/overlay/keepjson"

// What a later version adds to votes and proofs stays with them, wherever they are
// kept and to whomever they are told: each of these types carries the fields that
// this version does not know. A ballot and a register are compared as they are and
// carry none. A change that a signature must cover is another signed form, which
// an older version does not verify.

// UnmarshalJSON implements json.Unmarshaler.
func (s *State) UnmarshalJSON(raw []byte) (err error) {
	type plain State
	s.unknown, err = keepjson.Unmarshal(raw, (*plain)(s))
	return err
}

// MarshalJSON implements json.Marshaler.
func (s State) MarshalJSON() ([]byte, error) {
	type plain State
	return keepjson.Marshal(plain(s), s.unknown)
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *Acceptance) UnmarshalJSON(raw []byte) (err error) {
	type plain Acceptance
	a.unknown, err = keepjson.Unmarshal(raw, (*plain)(a))
	return err
}

// MarshalJSON implements json.Marshaler.
func (a Acceptance) MarshalJSON() ([]byte, error) {
	type plain Acceptance
	return keepjson.Marshal(plain(a), a.unknown)
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Value) UnmarshalJSON(raw []byte) (err error) {
	type plain Value
	v.unknown, err = keepjson.Unmarshal(raw, (*plain)(v))
	return err
}

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) {
	type plain Value
	return keepjson.Marshal(plain(v), v.unknown)
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Vote) UnmarshalJSON(raw []byte) (err error) {
	type plain Vote
	v.unknown, err = keepjson.Unmarshal(raw, (*plain)(v))
	return err
}

// MarshalJSON implements json.Marshaler.
func (v Vote) MarshalJSON() ([]byte, error) {
	type plain Vote
	return keepjson.Marshal(plain(v), v.unknown)
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *Certificate) UnmarshalJSON(raw []byte) (err error) {
	type plain Certificate
	c.unknown, err = keepjson.Unmarshal(raw, (*plain)(c))
	return err
}

// MarshalJSON implements json.Marshaler.
func (c Certificate) MarshalJSON() ([]byte, error) {
	type plain Certificate
	return keepjson.Marshal(plain(c), c.unknown)
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Decision) UnmarshalJSON(raw []byte) (err error) {
	type plain Decision
	d.unknown, err = keepjson.Unmarshal(raw, (*plain)(d))
	return err
}

// MarshalJSON implements json.Marshaler.
func (d Decision) MarshalJSON() ([]byte, error) {
	type plain Decision
	return keepjson.Marshal(plain(d), d.unknown)
}
