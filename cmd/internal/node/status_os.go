package node

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/assess"
	"github.com/kairos-io/kairos/image/slots"
)

// osReport is `kairos status --os -o json`.
type osReport struct {
	Booted osSlot `json:"booted"`
	Other  osSlot `json:"other"`
}

// osSlot is one slot for people and programs.
type osSlot struct {
	Slot       string     `json:"slot"`
	State      string     `json:"state"` // booted, staged, rollback, failed or empty
	Version    string     `json:"version,omitempty"`
	Kubernetes string     `json:"kubernetes,omitempty"` // that it starts where nothing else is configured
	Flavour    string     `json:"flavour,omitempty"`
	Digest     string     `json:"digest,omitempty"`
	Image      string     `json:"image,omitempty"`
	RootHash   string     `json:"root_hash,omitempty"`
	Generation uint64     `json:"generation,omitempty"`
	Trial      bool       `json:"trial"`                // its boots are counted
	TriesLeft  int        `json:"tries_left,omitempty"` // when they are
	StagedAt   *time.Time `json:"staged_at,omitempty"`
	Verdict    string     `json:"verdict,omitempty"` // on its last boot: good, bad or waiting
	Reason     string     `json:"reason,omitempty"`
}

// crashed is the reason of a system that failed without saying why.
const crashed = "it did not come up: it crashed or hung before it could say why"

func writeOSStatus(env *cli.Env, root, output string) error {
	m, err := openMachine(env, root)
	if err != nil {
		return err
	}
	log, err := assess.LoadLog(filepath.Join(root, assess.Dir))
	if err != nil {
		env.Say("%v", err) // the slots are known all the same
	}
	r := osReport{osSlotOf(m.status.Booted, log), osSlotOf(m.status.Other, log)}
	if output == "json" || output == "yaml" {
		return env.WriteObject(r, output)
	}
	writeOSTable(env, r, output == "wide")
	return nil
}

func osSlotOf(v slots.View, log assess.Log) osSlot {
	s := osSlot{Slot: v.Slot.String(), State: string(v.State), RootHash: v.RootHash}
	if e := v.Entry; e != nil {
		s.Generation, s.Trial, s.TriesLeft = e.Generation, e.Counted, e.Left
	}
	if r := v.Record; r != nil {
		s.Version, s.Flavour, s.Digest, s.Image = r.Version, r.Flavour, r.Digest, r.Image
		s.Kubernetes = agentapi.K3sOf(r.K3s, "").Kubernetes
		if !r.StagedAt.IsZero() {
			s.StagedAt = &r.StagedAt
		}
	}
	if rec, ok := log.Of(v.RootHash); ok && v.RootHash != "" {
		s.Verdict, s.Reason = string(rec.Verdict), rec.Reason
	}
	if v.State == slots.Failed {
		switch s.Verdict {
		case "":
			s.Reason = crashed
		case string(assess.Waiting):
			s.Reason = "its boot ended without a verdict, while " + s.Reason
		}
	}
	return s
}

func writeOSTable(env *cli.Env, r osReport, wide bool) {
	w := tabwriter.NewWriter(env.Result(), 0, 0, 3, ' ', 0)
	head := []string{"SLOT", "STATE", "VERSION", "KUBERNETES", "DIGEST", "TRIES"}
	if wide {
		head = append(head, "FLAVOUR", "IMAGE", "STAGED", "GENERATION", "ROOT HASH")
	}
	row := func(cells []string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) } // into memory
	row(head)
	for _, s := range []osSlot{r.Booted, r.Other} {
		digest := s.Digest
		if !wide {
			digest = digest[:min(len(digest), len("sha256:")+12)]
		}
		cells := []string{s.Slot, s.State, cli.OrDash(s.Version), cli.OrDash(s.Kubernetes), cli.OrDash(digest), "-"}
		if s.Trial {
			cells[5] = strconv.Itoa(s.TriesLeft)
		}
		if wide {
			staged, generation := "-", "-"
			if s.StagedAt != nil {
				staged = s.StagedAt.Format(time.DateOnly)
			}
			if s.Generation > 0 {
				generation = strconv.FormatUint(s.Generation, 10)
			}
			cells = append(cells, cli.OrDash(s.Flavour), cli.OrDash(s.Image), staged, generation, cli.OrDash(s.RootHash))
		}
		for i, c := range cells {
			cells[i] = agentapi.Printable(c)
		}
		row(cells)
	}
	_ = w.Flush() // into memory
	for _, line := range osLines(r) {
		fmt.Fprintln(env.Result(), agentapi.Printable(line))
	}
}

// osLines say in words what the table does not.
func osLines(r osReport) []string {
	var out []string
	if r.Booted.Trial {
		out = append(out, fmt.Sprintf("%s is on trial: %s", r.Booted.name(), cmp.Or(r.Booted.Reason, "it is not yet known to be good")))
	}
	switch o := r.Other; slots.State(o.State) {
	case slots.Staged:
		out = append(out, o.name()+" boots next; `kairos upgrade --apply` reboots, `kairos rollback` drops it")
		if o.Verdict == string(assess.Bad) {
			out = append(out, "its last boot was not good: "+o.Reason)
		}
	case slots.Failed:
		out = append(out, fmt.Sprintf("%s failed: %s", o.name(), o.Reason))
	case slots.Rollback:
		out = append(out, "`kairos rollback` goes back to "+o.name())
	}
	return out
}

// name is what a person calls it.
func (s osSlot) name() string { return cmp.Or(s.Version, "the system in slot "+s.Slot) }
