package departure

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/broadcast"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/rights"
)

// operation is a person's wish that this machine leaves, and how far that is. It
// is written down beside the mark that keeps the machine out, and lasts as long,
// until the next boot: an agent that is restarted in between goes on with it.
type operation struct {
	Status    agentapi.LeaveStatus `json:"status"`
	NodeGone  bool                 `json:"node_gone,omitempty"` // the node object was deleted
	Forgotten bool                 `json:"forgotten,omitempty"` // the role too, with the identity kept
}

// lacks reports whether something was asked for that a finished operation has not
// done: more than the key's fate does not depend on how one leaves.
func (o *operation) lacks() bool { return o.Status.Request.KeepIdentity && !o.Forgotten }

// Departure is the operation of this boot, if there is one. It is safe for
// concurrent use, and an Event: it tells when the agent's loop should look again.
type Departure struct {
	broadcast.Event
	Options

	mu      sync.Mutex
	busy    bool
	again   bool // the request was changed since the attempt began
	closed  bool // the agent ends: nothing is begun any more
	tasks   sync.WaitGroup
	op      operation
	retired chan struct{} // closed once the loop has left Kubernetes
}

// New reads what an earlier agent of this boot was asked.
func New(o Options) *Departure {
	if o.File == "" {
		o.File = DefaultFile
	}
	if o.Times == (Times{}) {
		o.Times = patientTimes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &Departure{Options: o, retired: make(chan struct{})}
	// What cannot be read was not asked for: a person has to ask again.
	if raw, err := os.ReadFile(d.record()); err == nil {
		var op operation
		if json.Unmarshal(raw, &op) == nil {
			d.op = op
		}
	}
	return d
}

// record is the file of the operation.
func (d *Departure) record() string { return filepath.Join(filepath.Dir(d.File), "leave.json") }

// save writes the operation down; the caller has the lock.
func (d *Departure) save() error {
	raw, err := json.Marshal(d.op)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(d.File), 0o755)
	}
	if err == nil {
		err = store.WriteFile(store.OS{}, d.record(), append(raw, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write down that this machine leaves: %w", err)
	}
	return nil
}

// Asked reports whether this machine is to stay out of its cluster. A file that
// cannot be looked at is none: without one the machine is a member.
func (d *Departure) Asked() bool {
	_, err := os.Stat(d.File)
	return err == nil
}

// begin marks the machine as leaving, until the next boot, and wakes the loop.
func (d *Departure) begin() error {
	if err := os.MkdirAll(filepath.Dir(d.File), 0o755); err != nil {
		return fmt.Errorf("mark this machine as leaving: %w", err)
	}
	if err := os.WriteFile(d.File, nil, 0o600); err != nil {
		return fmt.Errorf("mark this machine as leaving: %w", err)
	}
	d.Notify()
	return nil
}

// Observe notes what a turn of the loop has seen.
func (d *Departure) Observe(f role.Facts) {
	gone := f.K3s.Container == role.Absent || f.K3s.Container == role.Unknown && f.Marker.Presence == role.Absent
	told := !f.OverlayUp || f.Published[api.NotePhase] == rights.PhaseLeaving && !f.AppliedPodCIDR.IsValid()
	if !f.Leaving || !gone || !told {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.retired:
	default:
		close(d.retired)
	}
}

// run takes a request. The last word counts: it changes an operation that is
// under way, and begins one anew that failed, or that has succeeded without what
// is asked for now. An error means that nothing was begun or changed.
func (d *Departure) run(req agentapi.LeaveRequest, attempt func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("this agent is about to end: ask again")
	}
	was := d.op
	d.op.Status.Request = req
	if !d.busy && was.Status.Done && !d.op.lacks() {
		return nil
	}
	if !d.busy {
		d.op.Status = agentapi.LeaveStatus{ID: rand.Text(), Request: req, Asked: true, Step: "beginning to leave"}
	}
	if err := d.save(); err != nil {
		d.op = was
		return err
	}
	if d.busy {
		d.again = true
		return nil
	}
	d.start(attempt)
	return nil
}

// Resume goes on with what an earlier agent of this boot was asked and did not end.
func (d *Departure) Resume(life context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.op.Status; s.Asked && !s.Done && s.Error == nil && !d.busy && !d.closed {
		d.start(func() error { return d.try(life) })
	}
}

// start makes attempts beside the caller, which has the lock. One that ends
// while another request came in is followed by a second one.
func (d *Departure) start(attempt func() error) {
	d.busy = true
	d.tasks.Go(func() {
		for d.goOn(attempt()) {
		}
	})
}

// Wait ends with the attempt, whose context has ended; none is begun any more.
func (d *Departure) Wait() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.tasks.Wait()
}

// goOn takes the end of an attempt, and reports whether another one is due.
func (d *Departure) goOn(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	again := d.again && err != nil || d.op.lacks() && err == nil
	if d.again = false; errors.Is(err, context.Canceled) {
		d.busy = false
		return false // this agent ends: the next one goes on
	}
	if again && !d.closed {
		d.op.Status.Left = nil // it is looked for again
		return true
	}
	d.busy = false
	d.op.Status.Done = err == nil
	if err == nil {
		d.op.Status.Step = "left"
	} else if !errors.As(err, &d.op.Status.Error) {
		d.op.Status.Error = &api.Error{Message: err.Error()}
	}
	_ = d.save() // written down as under way: another agent repeats what is done, to no effect
	return false
}

// note changes the operation and writes it down.
func (d *Departure) note(f func(*operation)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.op)
	return d.save()
}

func (d *Departure) step(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.op.Status.Step = fmt.Sprintf(format, args...)
}

func (d *Departure) leftBehind(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.op.Status.Left = append(d.op.Status.Left, what)
}

// Status is how far it is.
func (d *Departure) Status() agentapi.LeaveStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.op.Status
}

// request is the last word of whoever asked.
func (d *Departure) request() agentapi.LeaveRequest { return d.Status().Request }

func (d *Departure) nodeGone() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.op.NodeGone
}
