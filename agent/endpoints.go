package agent

import (
	"net/http"

	"github.com/kairos-io/kairos/agent/kubeconfig"
	"github.com/kairos-io/kairos/agent/peer"
	"github.com/kairos-io/kairos/agent/seed"
	"github.com/kairos-io/kairos/overlay/rights"
)

// Paths of what agents ask each other, beside those of packages kubeconfig and seed.
const (
	genesisPath = "/v1/genesis" // votes, and what is known of the agreement
	joinPath    = "/v1/join"    // a server gives workers what they join with
	leavePath   = "/v1/leave"   // a server does for a leaving node what only an administrator may
)

// door is where an endpoint is.
type door uint8

const (
	// onOverlay: HTTPS on the overlay address, port peer.Port. The caller's key is a
	// member's that owns the address it comes from and has the endpoint's right.
	onOverlay door = iota
	// onSocket: the unix socket Options.Socket. The caller is root, or the agent's own user.
	onSocket
)

type endpoint struct {
	at      door
	pattern string       // as http.ServeMux has it
	right   rights.Right // that a member must have; of onOverlay only
	handle  http.HandlerFunc
	hint    string // for a member that does not have it: what to do; may be empty
}

// endpoints is everything that anybody can ask this agent. Nothing else is served.
func (a *agent) endpoints() []endpoint {
	const grantHint = "run `kairos get-kubeconfig` on a server, or on a laptop with `sudo kairos bridge`"
	own := kubeconfig.Client{Overlay: a.overlay, Peers: a.peers, Local: a.localGrant, Verify: a.verifyProof}
	return []endpoint{
		{onOverlay, "POST " + genesisPath, rights.Vote, a.handleGenesis, ""},
		{onOverlay, "POST " + kubeconfig.ProofPath, rights.Peer, a.handleProof, ""},
		{onOverlay, "POST " + joinPath, rights.Join, a.handleJoin, ""},
		{onOverlay, "POST " + kubeconfig.Path, rights.Grant, a.handleGrant, grantHint},
		{onOverlay, "GET " + seed.IndexPath, rights.Seed, a.seeder.ServeIndex, ""},
		{onOverlay, "GET " + seed.BlobPath, rights.Seed, a.handleBlob, ""},
		{onOverlay, "POST " + leavePath, rights.Leave, a.handleLeaving, ""},

		{onSocket, "GET /api/v1/agent", 0, a.handleStatus, ""},
		{onSocket, "/control/v1/kubeconfig", 0, own.Handler().ServeHTTP, ""},
		{onSocket, "POST /control/v1/lock", 0, a.handleLock, ""},
		{onSocket, "DELETE /control/v1/lock", 0, a.handleUnlock, ""},
		{onSocket, "GET /control/v1/leave", 0, a.handleLeave, ""},
		{onSocket, "POST /control/v1/leave", 0, a.handleLeave, ""},
	}
}

// peerEndpoints are those for other agents.
func (a *agent) peerEndpoints() []peer.Endpoint {
	var out []peer.Endpoint
	for _, e := range a.endpoints() {
		if e.at == onOverlay {
			out = append(out, peer.Endpoint{Pattern: e.pattern, Right: e.right, Handle: e.handle, Hint: e.hint})
		}
	}
	return out
}

// socketMux serves those for the command line.
func (a *agent) socketMux() *http.ServeMux {
	mux := http.NewServeMux()
	for _, e := range a.endpoints() {
		if e.at == onSocket {
			mux.HandleFunc(e.pattern, e.handle)
		}
	}
	return mux
}
