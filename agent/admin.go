package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/kairos-io/kairos/agent/departure"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/agent/peer"
	"github.com/kairos-io/kairos/overlay/api"
)

// leaveCall is the body of POST leavePath. It names no node: a member may ask
// for its own only. The answer is a kube.Progress.
type leaveCall struct {
	UID string `json:"uid"` // of the cluster that is meant
	Op  string `json:"op"`
}

// askServer has a server of the cluster do one step for this node.
func (a *agent) askServer(ctx context.Context, m departure.Membership, step string) (kube.Progress, error) {
	s, ok := a.otherServer(m)
	if !ok {
		return kube.Progress{}, errors.New("no server of the cluster is connected")
	}
	body, err := json.Marshal(leaveCall{UID: m.UID, Op: step})
	if err != nil {
		return kube.Progress{}, fmt.Errorf("encode the request: %w", err)
	}
	answer, err := a.peers.Post(ctx, s.ID, leavePath, body)
	if err != nil {
		return kube.Progress{}, err
	}
	var p kube.Progress
	if err := json.Unmarshal(answer, &p); err != nil {
		return kube.Progress{}, fmt.Errorf("decode the answer: %w", err)
	}
	return p, nil
}

// admin is the Kubernetes API of the server that runs here.
func (a *agent) admin() kube.API {
	return a.prober(k3s.Probe{Role: k3s.Server, Server: a.world.get().address(), Files: a.opt.Files})
}

// localAPI is admin's, for whoever keeps one: the address may change.
type localAPI struct{ a *agent }

// Do implements kube.API.
func (l localAPI) Do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	return l.a.admin().Do(ctx, method, path, body)
}

// handleLeaving does one step for another node of this cluster.
func (a *agent) handleLeaving(w http.ResponseWriter, r *http.Request) {
	c, _ := peer.CallerOf(r)
	var call leaveCall
	if err := readJSON(r, &call); err != nil {
		api.WriteError(w, err)
		return
	}
	uid, err := a.serving(r.Context())
	if err == nil && call.UID != uid {
		err = &api.Error{Message: "this server runs another cluster", Status: http.StatusConflict}
	}
	if err != nil {
		api.WriteError(w, err)
		return
	}
	p, err := departure.Help(r.Context(), a.admin(), c.Node, call.Op)
	if err != nil {
		api.WriteError(w, err)
		return
	}
	a.log.Info("helped a node to leave", "peer", c.ID, "step", call.Op, "pods", len(p.Left))
	api.WriteJSON(w, http.StatusOK, p)
}
