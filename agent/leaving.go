package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

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
	Status    LeaveStatus `json:"status"`
	NodeGone  bool        `json:"node_gone,omitempty"` // the node object was deleted
	Forgotten bool        `json:"forgotten,omitempty"` // the role too, with the identity kept
}

// lacks reports whether something was asked for that a finished operation has not
// done: more than the key's fate does not depend on how one leaves.
func (o *operation) lacks() bool { return o.Status.Request.KeepIdentity && !o.Forgotten }

// leaving is the operation of this boot. It is safe for concurrent use.
type leaving struct {
	broadcast.Event // when the loop should look again

	file  string
	times leaveTimes

	mu      sync.Mutex
	busy    bool
	again   bool // the request was changed since the attempt began
	closed  bool // the agent ends: nothing is begun any more
	tasks   sync.WaitGroup
	op      operation
	retired chan struct{} // closed once the loop has left Kubernetes
}

func newLeaving(file string) *leaving {
	if file == "" {
		file = DefaultLeftFile
	}
	l := &leaving{file: file, times: patientTimes, retired: make(chan struct{})}
	// What cannot be read was not asked for: a person has to ask again.
	if raw, err := os.ReadFile(l.record()); err == nil {
		var op operation
		if json.Unmarshal(raw, &op) == nil {
			l.op = op
		}
	}
	return l
}

// record is the file of the operation.
func (l *leaving) record() string { return filepath.Join(filepath.Dir(l.file), "leave.json") }

// save writes the operation down; the caller has the lock.
func (l *leaving) save() error {
	raw, err := json.Marshal(l.op)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(l.file), 0o755)
	}
	if err == nil {
		err = store.WriteFile(store.OS{}, l.record(), append(raw, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write down that this machine leaves: %w", err)
	}
	return nil
}

// asked reports whether this machine is to stay out of its cluster. A file that
// cannot be looked at is none: without one the machine is a member.
func (l *leaving) asked() bool {
	_, err := os.Stat(l.file)
	return err == nil
}

// begin marks the machine as leaving, until the next boot, and wakes the loop.
func (l *leaving) begin() error {
	if err := os.MkdirAll(filepath.Dir(l.file), 0o755); err != nil {
		return fmt.Errorf("mark this machine as leaving: %w", err)
	}
	if err := os.WriteFile(l.file, nil, 0o600); err != nil {
		return fmt.Errorf("mark this machine as leaving: %w", err)
	}
	l.Notify()
	return nil
}

// observe notes what a turn of the loop has seen.
func (l *leaving) observe(f role.Facts) {
	gone := f.K3s.Container == role.Absent || f.K3s.Container == role.Unknown && f.Marker.Presence == role.Absent
	told := !f.OverlayUp || f.Published[api.NotePhase] == rights.PhaseLeaving && !f.AppliedPodCIDR.IsValid()
	if !f.Leaving || !gone || !told {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.retired:
	default:
		close(l.retired)
	}
}

// run takes a request. The last word counts: it changes an operation that is
// under way, and begins one anew that failed, or that has succeeded without what
// is asked for now. An error means that nothing was begun or changed.
func (l *leaving) run(req LeaveRequest, attempt func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("this agent is about to end: ask again")
	}
	was := l.op
	l.op.Status.Request = req
	if !l.busy && was.Status.Done && !l.op.lacks() {
		return nil
	}
	if !l.busy {
		l.op.Status = LeaveStatus{ID: rand.Text(), Request: req, Asked: true, Step: "beginning to leave"}
	}
	if err := l.save(); err != nil {
		l.op = was
		return err
	}
	if l.busy {
		l.again = true
		return nil
	}
	l.start(attempt)
	return nil
}

// resume goes on with what an earlier agent of this boot was asked and did not end.
func (l *leaving) resume(attempt func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.op.Status; s.Asked && !s.Done && s.Error == nil && !l.busy && !l.closed {
		l.start(attempt)
	}
}

// start makes attempts beside the caller, which has the lock. One that ends
// while another request came in is followed by a second one.
func (l *leaving) start(attempt func() error) {
	l.busy = true
	l.tasks.Go(func() {
		for l.goOn(attempt()) {
		}
	})
}

// wait ends with the attempt, whose context has ended; none is begun any more.
func (l *leaving) wait() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.tasks.Wait()
}

// goOn takes the end of an attempt, and reports whether another one is due.
func (l *leaving) goOn(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	again := l.again && err != nil || l.op.lacks() && err == nil
	if l.again = false; errors.Is(err, context.Canceled) {
		l.busy = false
		return false // this agent ends: the next one goes on
	}
	if again && !l.closed {
		l.op.Status.Left = nil // it is looked for again
		return true
	}
	l.busy = false
	l.op.Status.Done = err == nil
	if err == nil {
		l.op.Status.Step = "left"
	} else if !errors.As(err, &l.op.Status.Error) {
		l.op.Status.Error = &api.Error{Message: err.Error()}
	}
	_ = l.save() // written down as under way: another agent repeats what is done, to no effect
	return false
}

// note changes the operation and writes it down.
func (l *leaving) note(f func(*operation)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.op)
	return l.save()
}

func (l *leaving) step(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.op.Status.Step = fmt.Sprintf(format, args...)
}

func (l *leaving) leftBehind(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.op.Status.Left = append(l.op.Status.Left, what)
}

func (l *leaving) get() LeaveStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.op.Status
}

// request is the last word of whoever asked.
func (l *leaving) request() LeaveRequest { return l.get().Request }

func (l *leaving) nodeGone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.op.NodeGone
}
