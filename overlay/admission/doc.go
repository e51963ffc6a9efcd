// Package admission proves that both ends of a connection belong to one network,
// before anything else is served on it, and says what each may do there.
//
// TLS 1.3 has authenticated both keys by then, in QUIC or over TCP; what is left is
// whether their owners hold the same token. The listener opens one stream on the fresh
// connection and both speak:
//
//	listener                                            dialler
//	   | nonceL                              32 bytes      |
//	   |-------------------------------------------------->|
//	   | nonceD, selector, sealed terms   1,088 bytes      |
//	   |<--------------------------------------------------|
//	   | sealed terms                     1,040 bytes      |
//	   |-------------------------------------------------->|
//
// Each message has one length, and every byte of it is random to whoever has no door of
// the network. The dialler proves first: a stranger that knocks sees 32 random bytes and
// then the door closing. A listener that refuses a proof ends the stream without an
// answer and waits a moment for the dialler to leave, so that a mistyped token shows as
// one and a lost connection does not.
//
// # Keys
//
// A door (package token) has a frame key, which every member has, and a join key, which
// is for newcomers. With | for concatenation, and every field of fixed length:
//
//	T        = "kairos/2/admission" 0 | version | dialler's ID | listener's ID | nonceD | nonceL
//	selector = the first 16 bytes of HMAC-SHA256(frame, "kairos/2/admission/selector" 0 | T)
//	h1       = SHA-256(T | selector)
//	h2       = SHA-256(h1 | the dialler's sealed terms)
//	h3       = SHA-256(h2 | the listener's sealed terms)
//	key(h, label) = HKDF-SHA256(frame, salt h, info "kairos/2/admission/" label), 32 bytes
//
//	dialler's terms:   ChaCha20-Poly1305 under key(h1, "dialler"), nonce 0
//	listener's terms:  ChaCha20-Poly1305 under key(h2, "listener"), nonce 0
//	dialler's join:    HMAC-SHA256(join, "kairos/2/admission/join/dialler" 0 | h1)
//	listener's join:   HMAC-SHA256(join, "kairos/2/admission/join/listener" 0 | h2)
//	PSK of sessions:   key(h3, "exporter")
//	public name:       key(h3, "session"), 16 bytes
//
// A key seals one message. Version and door are not written anywhere: the listener
// tries the selectors of all that it knows. Why nothing else gets in:
//
//   - A replay meets another nonce of the listener; a relayed proof meets another ID,
//     since both IDs are those that TLS proved; a reflected one meets the other role.
//   - Who speaks for another door or version than the dialler chose must forge a
//     selector. Nobody on the way can make a dialler choose an older one.
//   - Who has the frame key alone (the find half of a door, read off a stolen disk) opens
//     terms that are sent to its own ID and is refused all the same: it has no join key,
//     and what it reads is bound to both IDs, roles and nonces.
//   - The PSK is a secret of everybody outside of the TLS connection: its nonces travel
//     inside.
//
// # Terms
//
// Terms are TLV: tag 1 byte, length 2 bytes, value; tags ascend; 0 ends them, and zeros
// pad to 1,024 bytes. A tag of 0x80 or more that is unknown is refused, others are
// skipped.
//
//	1  run          16 bytes: random, names one run of a process; required
//	2  features     bit set, the lowest bits in the first byte; unknown ones count nothing
//	3  trust digest 32 bytes: what the speaker knows of revocations
//	4  credentials  each: kind 1 byte, length 2 bytes, value; kinds ascend
//	                1 join (above), 2 enrolment, 3 ticket; all but join are kept unread
//
// # Budgets
//
// Everything is bounded: the time of an admission, the admissions that run at once for
// strangers and for members, and the failures that an address and the networks around
// it may collect before their connections are refused unread. Whoever was a member
// before, or has proven a door by the time its attempt ends, pays for nothing: it dials
// all addresses of a node at once and drops all connections but one.
package admission
