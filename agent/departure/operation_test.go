package departure

import (
	"os"
	"path/filepath"
	"testing"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/api"
)

// A request that comes when the attempt has looked at the one before for the last time.
func TestLastWordCounts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		second agentapi.LeaveRequest
		ends   error // of the attempt that was under way
		want   int   // attempts
	}{
		{"the same again", agentapi.LeaveRequest{}, nil, 1},
		{"it failed by what was asked first", agentapi.LeaveRequest{Force: true}, &api.Error{Message: "it needs force"}, 2},
		{"its key is to be kept after all", agentapi.LeaveRequest{KeepIdentity: true}, nil, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "run", "left")
			d, ends, attempts := New(Options{File: file}), make(chan error, 2), 0
			attempt := func() error {
				attempts++
				err := <-ends
				if attempts == 2 {
					return d.note(func(o *operation) { o.Forgotten = d.op.Status.Request.KeepIdentity })
				}
				return err
			}
			if err := d.run(agentapi.LeaveRequest{}, attempt); err != nil {
				t.Fatal(err)
			}
			id := d.Status().ID
			if err := d.run(tt.second, attempt); err != nil {
				t.Fatal(err)
			}
			ends <- tt.ends
			ends <- nil
			d.tasks.Wait()
			if st := d.Status(); !st.Done || st.Error != nil || st.ID != id || st.Request != tt.second || attempts != tt.want {
				t.Errorf("%d attempts: %+v", attempts, st)
			}
			if again := New(Options{File: file}).Status(); !again.Done || again.ID != id || again.Request != tt.second {
				t.Errorf("written down: %+v", again)
			}
		})
	}
}

// A request that cannot be written down is not begun.
func TestRequestIsWrittenDownFirst(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "run"), nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	d := New(Options{File: filepath.Join(dir, "run", "left")})
	err := d.run(agentapi.LeaveRequest{}, func() error { t.Error("begun"); return nil })
	d.tasks.Wait()
	if err == nil || d.Status().Asked {
		t.Errorf("got %v, %+v", err, d.Status())
	}
}
