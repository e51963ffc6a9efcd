package identity

import "encoding/hex"

// weakKeys are the encodings of the curve points of small order, without the
// sign bit: those with the y coordinates 0, 1, -1 and of the points of order 8,
// each as it is written and, where it fits, with p added (RFC 8032, section
// 5.1.3, has such encodings refused; not every decoder does). For these
// "keys" anybody can make signatures, and two of them are the lowest IDs there are.
var weakKeys = func() map[ID]bool {
	out := make(map[ID]bool)
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			panic(err) // a slip in the table above
		}
		out[ID(raw)] = true
	}
	return out
}()

// weak reports whether id is no key that one owner alone can hold.
func (id ID) weak() bool {
	id[len(id)-1] &= 0x7f // the sign of x: a copy, id is a value
	return weakKeys[id]
}
