package agent

import (
	"bytes"
	"errors"
	"strings"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/console"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
)

// errReconfigured ends a run: the service manager starts the next one, with the
// configuration that is in force by then. Pods and k3s do not notice.
var errReconfigured = errors.New("the configuration is another one")

// configuration is what the loop knows of the files that Options.Config came from.
type configuration struct {
	config.Place
	stamp   string // of the files when they were looked at last
	inForce []byte // when this run began
	problem error  // why they are not taken as they are
}

func newConfiguration(p config.Place) *configuration {
	c := &configuration{Place: p}
	if p.Dir != "" {
		c.inForce = c.InForce()
	}
	return c
}

// lookAtConfiguration is the part of a turn: a changed configuration is put in force or refused. It
// reports whether another one is in force than this run has.
func (a *agent) lookAtConfiguration() bool {
	c := a.files
	if c.Dir == "" {
		return false
	}
	stamp := c.Stamp()
	if stamp == c.stamp {
		return false
	}
	joined := a.storeStatus == role.StoreUnusable || a.store.State().Phase != store.Idle
	loaded, err := c.Merge(joined)
	c.stamp, c.problem = c.Stamp(), err
	if nerr := console.Refused(agentapi.Notes{Root: c.Root}, err, true); nerr != nil {
		a.log.Warn("the console cannot be told", "err", nerr)
	}
	if err != nil {
		a.log.Warn("the configuration is refused, the last good one goes on", "err", err)
		return false
	}
	if bytes.Equal(c.InForce(), c.inForce) {
		return false
	}
	keys := config.Changed(a.cfg, loaded.Config)
	a.log.Info("the configuration has changed", "keys", strings.Join(keys, ", "), "restarts", strings.Join(config.Restarts(keys), ", "))
	return true
}

// raiseConfiguration tells what is wrong with the files, while another
// configuration runs.
func (a *agent) raiseConfiguration(out *outcome) {
	err := a.files.problem
	if err == nil {
		return
	}
	text := oneLine(err)
	var problems config.Problems
	if errors.As(err, &problems) {
		text = strings.Join(problems.Below(a.files.Root), "; ")
	}
	out.raise(health.Condition{Severity: health.Warning, Text: "the configuration is refused, the last good one goes on: " + text,
		Hint: "correct the file, it is read again at once; `kairos-agent config --check FILE` tells the same"}, health.CodeConfig)
}
