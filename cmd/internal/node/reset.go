package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/systemd"
)

// Files of a reset, relative to the root of the machine's file system.
const (
	resetRequest = "var/lib/kairos/reset"        // read by the initrd, which wipes
	persistRules = "usr/lib/kairos/persist.conf" // says what survives
	liveMark     = "run/kairos/live"
	container    = "run/systemd/container" // systemd's own mark: no initrd ran
)

// Pace of the questions how far leaving is, and how long an agent that was asked
// may be away; tests have less patience.
var (
	leavePoll = time.Second
	leaveAway = time.Minute
)

type resetFlags struct {
	sockets
	root             string
	keep, yes, force bool
	endCluster       string
	drain            time.Duration
}

func newReset(env *cli.Env) *cobra.Command {
	var f resetFlags
	cmd := &cobra.Command{
		Use: "reset",
		Long: `Take this machine out of its cluster and wipe its data: what was configured when
it was installed (/oem) and the operating system stay. Its pods are moved away as
their disruption budgets allow, its node is deleted, and the machine reboots; its
data is gone then, and with the same configuration it joins again as a new member.`,
		Example: "  sudo kairos reset\n  sudo kairos reset --keep-identity --yes",
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.keep, "keep-identity", false, "keep the machine's key, addresses, machine-id and SSH host keys")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.BoolVar(&f.force, "force", false, "go on where pods do not end in time or the cluster does not answer")
	flags.StringVar(&f.endCluster, "end-cluster", "", "network_id of the cluster that ends with this machine, its only server")
	flags.DurationVar(&f.drain, "drain-timeout", agentapi.DefaultDrain, "how long pods have to end")
	flags.StringVar(&f.root, "root", "/", "where the machine's file system begins")
	flags.StringVar(&f.overlay, "overlay-socket", cli.OverlaySocket, "control socket of the overlay")
	flags.StringVar(&f.agent, "agent-socket", cli.AgentSocket, "control socket of the agent")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.drain < time.Second {
			return cli.Usagef("drain-timeout must be at least 1s, not %s", f.drain)
		}
		return (&resetter{env: env, f: f}).run(cmd.Context())
	}
	return cmd
}

// resetter is one reset. Above ask it only looks.
type resetter struct {
	env  *cli.Env
	f    resetFlags
	node localNode
	in   membership
	name string // of this machine, for people
}

func (r *resetter) path(name string) string { return filepath.Join(r.f.root, name) }

func (r *resetter) run(ctx context.Context) error {
	kept, err := r.survivors()
	if err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	if r.name = r.node.status.Name; r.name == "" {
		if r.name, err = os.Hostname(); err != nil {
			return fmt.Errorf("read the host name: %w", err)
		}
	}
	r.in = r.membership()
	if err := r.check(); err != nil {
		return err
	}
	r.explain(kept)
	if err := r.ask(ctx); err != nil {
		return err
	}
	if err := r.leave(ctx); err != nil {
		return err
	}
	return r.commit(ctx)
}

// look asks the daemons what this machine is. Without the agent it cannot leave its
// cluster, so one that is being started is waited for.
func (r *resetter) look(ctx context.Context) (err error) {
	told := false
	r.node, err = askUntil(ctx, r.f.sockets, readDisk(r.f.root), func(n *localNode) bool {
		if known(n.agentErr) {
			return true
		}
		if !told {
			told = true
			r.env.Say("waiting for the agent, which does not answer yet: %v", n.agentErr)
		}
		return false
	})
	return err
}

// survivors returns the paths that the image's rules keep, and refuses a machine
// on which nothing would carry the reset out.
func (r *resetter) survivors() ([]string, error) {
	if _, err := os.Stat(r.path(liveMark)); err == nil {
		return nil, cli.WithHint(errors.New("this machine runs from its installation medium: there is nothing to reset"), "reboot it")
	}
	rules, err := os.ReadFile(r.path(persistRules))
	if _, inside := os.Stat(r.path(container)); inside == nil || errors.Is(err, fs.ErrNotExist) {
		return nil, cli.WithHint(errors.New("this machine does not boot from a kairos disk, so nothing here carries a reset out"),
			"stop kairos-agent and kairos-overlay, and remove /var/lib/kairos and /var/lib/rancher")
	}
	if err != nil {
		return nil, fmt.Errorf("read what survives a reset: %w", err)
	}
	kept := []string{"/oem"}
	for line := range strings.Lines(string(rules)) {
		if word := strings.Fields(line); r.f.keep && len(word) == 2 && word[0] == "identity" {
			kept = append(kept, word[1])
		}
	}
	return kept, nil
}

// membership is the agent's word, and what is on disk where the agent gives none:
// when it does not run, and when it is leaving already.
func (r *resetter) membership() membership {
	if c := r.node.agent.Cluster; r.node.agentErr == nil && c.Role != "" {
		return membership{role: store.Role(c.Role), networkID: c.NetworkID}
	}
	m := membershipOf(r.f.root)
	if r.node.agentErr == nil {
		m.networkID = cmp.Or(r.node.agent.Cluster.NetworkID, m.networkID)
	}
	if m.networkID == "" { // the marker and the datastore do not tell it
		c, _, err := givenConfig(r.f.root)
		if err != nil {
			c.NetworkID = cmp.Or(m.uid, r.name) // something that nobody types by habit
		}
		m.networkID = c.NetworkID
	}
	return m
}

// check refuses what cannot work, before anything is asked.
func (r *resetter) check() error {
	server, silent := r.in.role == store.Server, r.node.agentErr != nil
	unsaid := r.in.endsCluster() && r.f.yes && r.f.endCluster != r.in.networkID
	switch {
	case silent && errors.Is(r.node.agentErr, api.ErrForbidden):
		return cli.WithHint(r.node.agentErr, "run the command with sudo")
	case silent && !r.f.force:
		return cli.WithHint(fmt.Errorf("the agent, which takes this machine out of its cluster, does not answer: %w", r.node.agentErr),
			"see `systemctl status kairos-agent`; --force wipes the data without leaving")
	case silent && r.f.keep:
		return cli.WithHint(cli.Usagef("--keep-identity needs the agent, which does not answer: it alone knows whether this machine may come back under its key"),
			"leave out --keep-identity")
	case server && r.f.keep:
		return cli.WithHint(cli.Usagef("the cluster's server cannot come back under its key, because its data will be gone"), "leave out --keep-identity")
	case server && unsaid:
		return cli.WithHint(cli.Usagef("this machine is the server of cluster %q, which would end for good", r.in.networkID),
			"add --end-cluster %s if that is meant", r.in.networkID)
	case unsaid:
		return cli.WithHint(cli.Usagef("it cannot be read whether this machine is the server of a cluster, which would end for good: %w", r.in.problem),
			"add --end-cluster %s if that may happen", r.in.networkID)
	case r.f.endCluster != "" && !r.in.endsCluster():
		return cli.Usagef("--end-cluster %s: this machine is not a server", r.f.endCluster)
	}
	return nil
}

// explain says exactly what will be lost, and what stays.
func (r *resetter) explain(kept []string) {
	say := r.env.Say
	say("this resets %s:", agentapi.Printable(r.name))
	id := agentapi.Printable(r.in.networkID)
	if r.node.agentErr != nil {
		say("- it does not leave its cluster, because its agent does not answer; if it is in one, its node object stays there")
	}
	switch {
	case r.in.role == store.Server:
		say("- CLUSTER %q ENDS: this machine is its server, and everything that Kubernetes knows is lost;", id)
		say("  the other machines go on waiting for it: reset them too, to make a new cluster with them")
	case r.in.problem != nil:
		say("- A CLUSTER MAY END: it cannot be read whether this machine is the server of one")
	case r.in.role != store.NoRole && r.node.agentErr == nil:
		say("- it leaves cluster %q: its pods are moved away, its node is deleted", id)
	}
	say("- everything below /var, /home, /root, /opt, /srv and /usr/local is lost, with all data of pods on this disk, and every change in /etc")
	if !r.f.keep {
		say("- its key and addresses in the network are lost: it comes back as a new member")
	}
	say("- what stays: the operating system, %s", strings.Join(kept, ", "))
}

// ask wants the machine's name typed, and the cluster's where it ends.
func (r *resetter) ask(ctx context.Context) error {
	if !r.f.yes {
		if err := confirmName(ctx, r.env, "reset this machine", r.name); err != nil {
			return err
		}
	}
	if r.in.endsCluster() && r.f.endCluster == "" {
		if err := confirmName(ctx, r.env, "end the cluster", r.in.networkID); err != nil {
			return err
		}
		r.f.endCluster = r.in.networkID
	}
	return nil
}

// confirmName asks a person to type the name of what will be lost.
func confirmName(ctx context.Context, e *cli.Env, what, name string) error {
	if !interactive(e) {
		return cli.WithHint(cli.Usagef("to %s needs a confirmation, and standard input is not a terminal", what), "add --yes")
	}
	_, _ = fmt.Fprintf(e.Stderr, "%s: type %s to %s: ", e.Program, agentapi.Printable(name), what) // nobody is left to tell
	line, err := readLine(ctx, e.Stdin)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != name {
		return fmt.Errorf("nothing was changed: that was not %s", agentapi.Printable(name))
	}
	return nil
}

// leave takes the machine out of its cluster and shows how far that is.
func (r *resetter) leave(ctx context.Context) error {
	if r.node.agentErr != nil {
		return nil // with --force; it was told
	}
	c := api.NewClient(r.f.agent)
	defer c.CloseIdle()
	const path = "/control/v1/leave"
	req := agentapi.LeaveRequest{Force: r.f.force, KeepIdentity: r.f.keep, EndCluster: r.f.endCluster, DrainSeconds: int(r.f.drain / time.Second)}
	x := api.Exchange{Method: http.MethodPost, Path: path, In: req}
	told := ""
	var heard time.Time // when the agent last answered
	for {
		var st agentapi.LeaveStatus
		x.Out = &st
		err := callLocal(ctx, c, x)
		switch {
		case err == nil:
			heard = time.Now()
		case ctx.Err() != nil || answered(err) || heard.IsZero() || time.Since(heard) > leaveAway:
			return r.notLeft(err)
		default:
			st.Asked, st.Step = true, "waiting for the agent, which does not answer at the moment"
		}
		if st.Step != told {
			told = st.Step
			r.env.Say("%s", cli.OneLine(told))
		}
		switch {
		case st.ID != "" && st.Request != req:
			return r.notLeft(errors.New("somebody asked again, with other flags, and that counts"))
		case st.Error != nil:
			return r.notLeft(st.Error)
		case st.Done:
			for _, what := range st.Left {
				r.env.Say("left behind: %s", cli.OneLine(what))
			}
			return nil
		case !st.Asked:
			return r.notLeft(errors.New("the agent knows nothing of it any more"))
		}
		x = api.Exchange{Method: http.MethodGet, Path: path}
		t := time.NewTimer(leavePoll)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// answered reports whether an error is what a daemon said, and not that it was
// gone before it could say anything.
func answered(err error) bool {
	var e *api.Error
	return errors.As(err, &e) || errors.Is(err, api.ErrForbidden)
}

func callLocal(ctx context.Context, c *api.Client, x api.Exchange) error {
	ctx, cancel := context.WithTimeout(ctx, cli.AskTimeout)
	defer cancel()
	return c.Call(ctx, x)
}

// notLeft explains why the machine is not wiped.
func (r *resetter) notLeft(err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		return cli.WithHint(fmt.Errorf("nothing was wiped: %s", e.Message), "%s", cmp.Or(e.Hint, "run the command again to go on; --force wipes the data whatever comes of leaving"))
	}
	return cli.WithHint(fmt.Errorf("nothing was wiped: %w", err), "run the command again to go on; --force wipes the data whatever comes of leaving")
}

// commit writes the request, which is the point of no return, and reboots.
func (r *resetter) commit(ctx context.Context) error {
	request := "reset\n"
	if r.f.keep {
		request = "reset keep-identity\n"
	}
	if err := store.WriteFile(store.OS{}, r.path(resetRequest), []byte(request)); err != nil {
		return cli.WithHint(fmt.Errorf("ask for the data to be wiped: %w", err), "this machine left its cluster and still has its data: it joins again with the next boot")
	}
	r.env.Say("rebooting: the data of this machine is wiped at the beginning of the next boot")
	if err := systemd.Reboot(ctx); err != nil {
		return cli.WithHint(err, "reboot the machine yourself; to keep its data, remove /%s first", resetRequest)
	}
	return nil
}
