package node

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// What a person has to type before data is lost: the machine's name, and the
// cluster's where it ends.
func TestResetAsks(t *testing.T) {
	server := membership{role: store.Server, networkID: "home"}
	tests := []struct {
		name  string
		in    membership
		flags resetFlags
		input string
		end   string // network_id that the agent is told
		want  string // "" for consent
	}{
		{"the name", membership{}, resetFlags{}, "alpha-aeaaaa\n", "", ""},
		{"another name", membership{}, resetFlags{}, "beta\n", "", "nothing was changed: that was not alpha-aeaaaa"},
		{"y is no name", membership{}, resetFlags{}, "y\n", "", "nothing was changed: that was not alpha-aeaaaa"},
		{"nothing", membership{}, resetFlags{}, "", "", "nothing was changed: that was not alpha-aeaaaa"},
		{"--yes", membership{}, resetFlags{yes: true}, "", "", ""},
		{"the server, both names", server, resetFlags{}, "alpha-aeaaaa\nhome\n", "home", ""},
		{"the server, one name", server, resetFlags{}, "alpha-aeaaaa\n", "", "nothing was changed: that was not home"},
		{"the server, its end is a flag", server, resetFlags{endCluster: "home"}, "alpha-aeaaaa\n", "home", ""},
		{"the server, nothing is asked", server, resetFlags{yes: true, endCluster: "home"}, "", "home", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env, out := person("", true)
			env.Stdin = iotest.OneByteReader(strings.NewReader(tt.input)) // a terminal gives no more than a line
			r := &resetter{env: env, f: tt.flags, name: "alpha-aeaaaa"}
			r.in = tt.in
			err := r.ask(t.Context())
			if got := errorText(err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if r.f.endCluster != tt.end {
				t.Errorf("the agent is told to end %q", r.f.endCluster)
			}
			if !tt.flags.yes && !strings.Contains(out.String(), "kairos: type alpha-aeaaaa to reset this machine: ") {
				t.Errorf("asked %q", out.String())
			}
		})
	}
}

// writerFunc is called with what is written.
type writerFunc func([]byte)

// Write implements io.Writer.
func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

// The agent is restarted while it takes the machine out of its cluster: it goes
// on, and so does whoever waits for it. One that stays away is told.
func TestResetWaitsForTheAgent(t *testing.T) {
	for _, tt := range []struct {
		name  string
		away  time.Duration // that it may be
		comes bool
		want  string
	}{
		{"it comes back", time.Minute, true, ""},
		{"it does not", 50 * time.Millisecond, false, "nothing was wiped: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			was := leaveAway
			leaveAway = tt.away
			t.Cleanup(func() { leaveAway = was })
			path := filepath.Join(t.TempDir(), "agent.sock")
			serve := func(answer string, asked chan<- string) *http.Server {
				l, err := api.ListenUnix(path, -1)
				if err != nil {
					t.Error(err)
					return nil
				}
				s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked <- r.Method
					_, _ = w.Write([]byte(answer)) // the caller may be gone
				})}
				go func() { _ = s.Serve(l) }() // until it is closed
				return s
			}
			asked := make(chan string, 1000)
			first := serve(`{"id":"x","asked":true,"step":"draining","request":{"drain_seconds":60}}`, asked)
			env, said := person("", false)
			away := make(chan struct{}, 1)
			env.Stderr = io.MultiWriter(said, writerFunc(func(line []byte) {
				if bytes.Contains(line, []byte("does not answer at the moment")) {
					away <- struct{}{}
				}
			}))
			r := &resetter{env: env, f: resetFlags{sockets: sockets{agent: path}, drain: time.Minute}}
			done := make(chan error, 1)
			go func() { done <- r.leave(t.Context()) }()
			<-asked
			<-asked // so that the first answer has arrived
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if tt.comes {
				<-away // a question met nobody
				second := serve(`{"id":"x","asked":true,"step":"left","done":true,"request":{"drain_seconds":60}}`, asked)
				t.Cleanup(func() { _ = second.Close() })
			}
			if got := errorText(<-done); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("got %q, want %q; said %s", got, tt.want, said)
			}
		})
	}
}

// Whoever resets a machine as soon as a login is there meets an agent that is being
// started: it is waited for where the machine is configured, and told when it stays away.
func TestResetWaitsForTheStart(t *testing.T) {
	const starting, worker = `{}`, `{"cluster":{"phase":"running","role":"worker"}}`
	for _, tt := range []struct {
		name    string
		config  bool
		answers []string // the last one again and again
		want    string   // why nothing is known of the agent
		told    bool     // that it is waited for
	}{
		{"it answers", true, []string{worker}, "", false},
		{"it has just started", true, []string{starting, starting, worker}, "", true},
		{"it gets no further", true, []string{starting}, "it has just started", true},
		{"it refuses", true, []string{`{"error":"no"}`}, "no", false},
		{"nothing is configured", false, []string{starting, worker}, "it has just started", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			if tt.config {
				config := filepath.Join(root, "oem", "config.yaml")
				if err := errors.Join(os.MkdirAll(filepath.Dir(config), 0o755), os.WriteFile(config, []byte(freshConfig(t)), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			s := sockets{overlay: filepath.Join(root, "none.sock"), agent: filepath.Join(root, "agent.sock")}
			l, err := api.ListenUnix(s.agent, -1)
			if err != nil {
				t.Fatal(err)
			}
			var asked atomic.Int32
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answer := tt.answers[min(int(asked.Add(1)), len(tt.answers))-1]
				if strings.Contains(answer, "error") {
					w.WriteHeader(http.StatusConflict)
				}
				_, _ = w.Write([]byte(answer)) // the caller may be gone
			})}
			go func() { _ = server.Serve(l) }() // until it is closed
			t.Cleanup(func() { _ = server.Close() })
			env, said := person("", false)
			r := &resetter{env: env, f: resetFlags{sockets: s, root: root}}
			if err := r.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := errorText(r.node.agentErr); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := strings.Contains(said.String(), "waiting for the agent"); got != tt.told {
				t.Errorf("said %q", said)
			}
		})
	}
}
