package genesis

import (
	"slices"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/token"
)

// NetworkOf is what the holders of t agree on for the cluster networkID.
func NetworkOf(t token.Token, networkID string) Network {
	return Network{Fingerprint: t.Keys().Genesis, ID: networkID, Nodes: t.Nodes(), Quorum: t.Quorum()}
}

// Verifier returns what reads proofs of clusters for who holds t. Its error means
// that the bytes prove nothing.
func Verifier(t token.Token) func(networkID string, proof []byte) (agentapi.Proven, error) {
	return func(networkID string, proof []byte) (agentapi.Proven, error) {
		d, err := ReadProof(NetworkOf(t, networkID), proof, nil)
		if err != nil {
			return agentapi.Proven{}, err
		}
		return agentapi.Proven{UID: d.UID().String(), Servers: slices.Clone(d.Servers())}, nil
	}
}
