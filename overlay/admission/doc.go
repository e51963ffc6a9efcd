// Package admission proves that both ends of a connection hold the network's
// token, before anything else is served on it.
//
// libp2p has authenticated the two keys by then (TLS 1.3, in QUIC or over
// TCP); what is left to prove is that their owners belong to the same mesh.
// The listener opens one stream on the fresh connection and both speak:
//
//	listener                                 dialler
//	   | version, nonceL                        |   hello   33 bytes
//	   |--------------------------------------->|
//	   |  nonceD, MAC(dialler, transcript)      |   proof   64 bytes
//	   |<---------------------------------------|
//	   | MAC(listener, transcript)              |   answer  32 bytes
//	   |--------------------------------------->|
//
// MAC is HMAC-SHA256 (RFC 2104) with the token's admission key over the
// speaker's role, both node IDs and both nonces, so that a proof is worth
// nothing on another connection, to another node or in the other role. The
// dialler proves first: a stranger that knocks sees random bytes and then the
// door closing, nothing that says what lives behind it. Until Admit returns,
// nobody accepts streams on the connection, so there is nothing to hold back.
//
// The first half of a nonce names the run of the process that made it. Two
// connections from one node but from different runs are told apart that way,
// and the older one is known to be dead without waiting for a time-out.
//
// Everything is bounded: the time of an admission, the admissions that run at
// once (altogether and for one address), and the failures that an address may
// collect before its connections are refused unread.
package admission
