package agent

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// LockRequest is the body of POST /control/v1/lock.
type LockRequest struct {
	Reason string `json:"reason"` // one line, for whoever is refused meanwhile
}

// LockAnswer is what it answers. A node that runs no control plane needs no lock.
type LockAnswer struct {
	Held bool `json:"held"`
}

// serverHere reports whether this machine is a server of a cluster, so that the
// lock concerns it.
func (a *agent) serverHere() bool {
	st := a.store.State()
	return a.cfg.Cluster.Enabled && st.Role == store.Server && st.Phase.AtLeast(store.Starting)
}

// handleLock takes the cluster's upgrade lock for this machine.
func (a *agent) handleLock(w http.ResponseWriter, r *http.Request) {
	var req LockRequest
	if err := readJSON(r, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	if !a.serverHere() {
		api.WriteJSON(w, http.StatusOK, LockAnswer{})
		return
	}
	err := a.lock.Take(r.Context(), a.nodeName(), req.Reason)
	var held *kube.HeldError
	if errors.As(err, &held) {
		err = &api.Error{
			Message: held.Error(), Status: http.StatusConflict,
			Hint: fmt.Sprintf("servers are upgraded one after the other: wait for %s; a lock that nobody gives back ends in %s, or with `kubectl -n kube-system delete lease kairos-upgrade`",
				held.Holder, held.Left.Round(time.Minute)+time.Minute),
		}
	}
	if err != nil {
		api.WriteError(w, err)
		return
	}
	a.log.Info("took the upgrade lock", "reason", req.Reason)
	api.WriteJSON(w, http.StatusOK, LockAnswer{Held: true})
}

// handleUnlock gives it back, if this machine has it: at once, or, where this
// node does not work yet, as soon as it is ready. Until then no other server
// shall go down.
func (a *agent) handleUnlock(w http.ResponseWriter, r *http.Request) {
	st := a.report.last.Load()
	if !a.serverHere() {
		api.WriteJSON(w, http.StatusOK, LockAnswer{})
		return
	}
	if err := a.lock.GiveBack(r.Context(), a.nodeName(), st != nil && st.Ready); err != nil {
		a.log.Warn("the upgrade lock could not be given back yet", "err", err)
	}
	api.WriteJSON(w, http.StatusOK, LockAnswer{})
}
