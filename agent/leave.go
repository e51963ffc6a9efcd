package agent

import (
	"context"
	"net/http"
	"slices"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/departure"
	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// handleLeave begins to leave, or goes on with it; GET tells how far it is.
func (a *agent) handleLeave(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		var req agentapi.LeaveRequest
		err := readJSON(r, &req)
		if err == nil {
			err = a.leave.Ask(a.life, req)
		}
		if err != nil {
			api.WriteError(w, err)
			return
		}
	}
	api.WriteJSON(w, http.StatusOK, a.leave.Status())
}

// leaver is this machine as the departure sees it.
type leaver struct{ a *agent }

// Membership implements departure.Node. It goes by the state, and where that is
// lost by the marker in k3s' data.
func (l leaver) Membership() (departure.Membership, error) {
	var m departure.Membership
	if st := l.a.store.State(); st.Phase.AtLeast(store.Starting) {
		m = departure.Membership{UID: st.ClusterUID, Server: st.Role == store.Server, Servers: st.Servers}
	} else {
		marker, _, err := l.a.opt.Files.ReadMarker()
		if err != nil {
			return m, err
		}
		m = departure.Membership{UID: marker.UID, Server: marker.Role == store.Server, Servers: marker.Servers}
	}
	_, other := l.a.otherServer(m)
	m.Alone = !other
	return m, nil
}

// AskServer implements departure.Node.
func (l leaver) AskServer(ctx context.Context, m departure.Membership, step string) (kube.Progress, error) {
	return l.a.askServer(ctx, m, step)
}

// Forget implements departure.Node.
func (l leaver) Forget() error {
	if driver, _ := l.a.voting.get(); driver != nil {
		if err := driver.Pin(genesis.UID{}); err != nil {
			return err
		}
	}
	return l.a.store.Forget()
}

// Name implements departure.Node.
func (l leaver) Name() string { return l.a.nodeName() }

// Waiting implements departure.Node.
func (l leaver) Waiting() string { return l.a.report.last.Load().Cluster.Waiting }

// otherServer is a connected server of the cluster other than this machine.
func (a *agent) otherServer(m departure.Membership) (role.Server, bool) {
	w := a.world.get()
	for _, s := range servers(w, a.cfg.NetworkID) {
		if s.UID == m.UID && s.ID != w.status.ID && s.Connected && (len(m.Servers) == 0 || slices.Contains(m.Servers, s.ID)) {
			return s, true
		}
	}
	return role.Server{}, false
}
