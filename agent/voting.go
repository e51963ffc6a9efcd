package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/kairos-io/kairos/agent/broadcast"
	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/peer"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// errNotOpen stands in for the driver until there has been a first try to open it.
var errNotOpen = errors.New("the agreement has not started yet")

// voting holds the driver of the agreement: none until the overlay has told who
// this node is. It is safe for concurrent use.
type voting struct {
	base context.Context // the agent's own, which outlives a turn

	mu      sync.Mutex
	driver  *genesis.Driver
	problem error // why there is no driver: errNotOpen before the first try
	cancel  context.CancelFunc
	done    chan struct{}
	opened  broadcast.Event // or not, for another reason; a driver tells of its own news
}

func (v *voting) get() (*genesis.Driver, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.driver, v.problem
}

// Changed returns a channel that is closed when the agreement has moved.
func (v *voting) Changed() <-chan struct{} {
	if d, _ := v.get(); d != nil {
		return d.Changed()
	}
	return v.opened.Changed()
}

// set takes over what opening the agreement gave. It is tried again in every turn:
// what comes to the same is no news, or each turn would call for the next one.
func (v *voting) set(d *genesis.Driver, problem error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	news := v.driver != d || fmt.Sprint(v.problem) != fmt.Sprint(problem)
	v.driver, v.problem = d, problem
	if news {
		v.opened.Notify()
	}
}

// start runs the driver unless it runs already.
func (v *voting) start(failed func(error)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.driver == nil || v.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(v.base)
	v.cancel = cancel
	v.done = make(chan struct{})
	driver, done := v.driver, v.done
	go func() {
		defer close(done)
		if err := driver.Run(ctx); err != nil {
			failed(err)
		}
	}()
}

// stop ends the driver's own activity; it goes on answering others.
func (v *voting) stop() {
	v.mu.Lock()
	cancel, done := v.cancel, v.done
	v.cancel, v.done = nil, nil
	v.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// takesPart returns the driver while this node takes part in the agreement: one
// that is not sure of its memory answers nothing.
func (v *voting) takesPart() (*genesis.Driver, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.driver != nil && v.cancel == nil {
		return nil, errors.New("it must not at present")
	}
	return v.driver, v.problem
}

// abstain gives up the votes of epochs up to epoch.
func (v *voting) abstain(epoch uint64) error {
	d, problem := v.get()
	if d == nil {
		return &health.Pending{Reason: "the agreement cannot be opened: " + problem.Error()}
	}
	return d.Abstain(epoch)
}

// stopped notes that the driver ended by itself, so that a later turn starts it again.
func (v *voting) stopped() {
	v.mu.Lock()
	cancel := v.cancel
	v.cancel, v.done = nil, nil
	v.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// openVoting makes the driver once the node knows its ID and its state.
func (a *agent) openVoting(self identity.ID, abstain uint64) {
	if d, _ := a.voting.get(); d != nil || self.IsZero() {
		return
	}
	d, err := genesis.NewDriver(genesis.Options{
		Self:      self,
		Network:   genesis.NetworkOf(a.cfg.NetworkToken, a.cfg.NetworkID),
		Transport: transport{a.peers},
		Signer:    a.overlay,
		Store:     genesis.NewStore(a.store),
		View:      a.world,
		Log:       a.log,
	})
	if err == nil && abstain > 0 {
		err = d.Abstain(abstain)
	}
	if err != nil {
		a.voting.set(nil, err)
		return
	}
	a.voting.set(d, nil)
}

// transport carries the agreement's messages to other agents.
type transport struct{ peers *peer.Peer }

// Send implements genesis.Transport.
func (t transport) Send(ctx context.Context, to identity.ID, msg []byte) ([]byte, error) {
	return t.peers.Post(ctx, to, genesisPath, msg)
}

// handleGenesis answers another node's message.
func (a *agent) handleGenesis(w http.ResponseWriter, r *http.Request) {
	c, _ := peer.CallerOf(r)
	d, problem := a.voting.takesPart()
	if d == nil {
		api.WriteError(w, &api.Error{Message: "does not take part in the agreement (yet): " + problem.Error(), Status: http.StatusServiceUnavailable})
		return
	}
	msg, err := readBody(r)
	if err != nil {
		api.WriteError(w, err)
		return
	}
	reply, err := d.HandleMessage(r.Context(), c.ID, msg)
	if err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, genesis.ErrInvalid) {
			status = http.StatusBadRequest
		}
		api.WriteError(w, &api.Error{Message: err.Error(), Status: status})
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(reply) // the connection may be gone
}
