package agent

import (
	"errors"
	"net/http"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// verifyProof is genesis.Verifier for this machine, which knows its own cluster
// and takes no other for it.
func (a *agent) verifyProof(networkID string, proof []byte) (agentapi.Proven, error) {
	p, err := genesis.Verifier(a.cfg.NetworkToken)(networkID, proof)
	st := a.store.State()
	if err == nil && networkID == a.cfg.NetworkID && st.Phase.AtLeast(store.Starting) && p.UID != st.ClusterUID {
		err = errors.New("it is of another cluster than this machine's")
	}
	return p, err
}

// handleProof tells any member which cluster this machine can prove.
func (a *agent) handleProof(w http.ResponseWriter, _ *http.Request) {
	var proof []byte
	d, problem := a.voting.get()
	if d != nil {
		var err error
		if proof, err = d.Proof(); err != nil {
			api.WriteError(w, err)
			return
		}
	}
	if proof == nil {
		message := "can prove no cluster yet"
		if problem != nil {
			message += ": " + problem.Error()
		}
		api.WriteError(w, &api.Error{Message: message, Status: http.StatusServiceUnavailable})
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(proof) // the connection may be gone
}
