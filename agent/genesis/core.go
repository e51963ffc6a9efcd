package genesis

import (
	"github.com/kairos-io/kairos/overlay/identity"
)

// Network is what every node of one cluster-to-be agrees on without talking.
type Network struct {
	Fingerprint [32]byte // token.Keys().Genesis: public name of the network
	ID          string   // network_id
	Nodes       int      // n, as declared in the token
	Quorum      int      // Q = n/2+1
}

// VerifyFunc checks a signature; identity.Verify is the real one.
type VerifyFunc func(id identity.ID, context string, msg, sig []byte) bool
