// Package identity is who a node is: an Ed25519 key made at first start, the
// ID that names it, and the overlay addresses that follow from the ID.
//
// The token is the door, the key is the person: members of a mesh share the
// token, but each speaks only with its own key. Everything here is pure apart
// from LoadOrCreate, which owns the key's file.
package identity
