package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/api"
)

// Where the daemons of a node, or a bridge, are reached.
const (
	OverlaySocket = "/run/kairos/overlay/overlay.sock"
	AgentSocket   = "/run/kairos/agent/agent.sock"
	DefaultAPI    = "127.0.0.1:8080"
)

// AskTimeout bounds a question to a local daemon.
const AskTimeout = 10 * time.Second

// statusReport is `kairos status -o json`.
type statusReport struct {
	Status  api.Status   `json:"status"`
	Nodes   []api.Node   `json:"nodes"`
	Cluster *api.Cluster `json:"cluster,omitempty"`
	Notes   []string     `json:"notes,omitempty"` // what this machine's configuration will not do, a line each
	Waiting string       `json:"waiting,omitempty"`
}

// NewStatus is the verb that shows the network. slots shows the slots of this
// machine's operating system; nil where the node's program has to be run for it.
func NewStatus(env *Env, slots func(root, output string) error) *cobra.Command {
	var output, socket, addr, root string
	var system bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the nodes of the network, and what is being waited for",
		Long: `Show the nodes of the network that this machine is part of, by its node or by a
running bridge: name, role, address, and the path that packets take: direct
(sealed UDP datagrams) or a stream of a quic or tcp connection, its round-trip
time, loss of probes, largest packet in bytes, and why it is this path; with
-o wide all paths, the one in use marked by a star. While something is missing, the last line says what is being waited for.
With --os, show what is in the slots of this machine's operating system instead.`,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, wide, json or yaml")
	cmd.Flags().StringVar(&socket, "socket", OverlaySocket, "control socket of the overlay")
	cmd.Flags().StringVar(&addr, "api", DefaultAPI, "address of the read-only API, asked when the socket cannot be")
	cmd.Flags().BoolVar(&system, "os", false, "show the slots of the operating system: which version runs, which boots next, why one failed")
	cmd.Flags().StringVar(&root, "root", "/", "where the machine's file system begins, with --os and for its notes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains([]string{"table", "wide", "json", "yaml"}, output) {
			return Usagef("output must be table, wide, json or yaml, not %q", output)
		}
		switch {
		case system && slots != nil:
			return slots(root, output)
		case system:
			return onNode("status --os", []string{"status", "--os", "--root", root, "--output", output})
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), AskTimeout)
		defer cancel()
		clients := []*api.Client{api.NewClient(socket)}
		if !cmd.Flags().Changed("socket") {
			clients = append(clients, api.NewTCPClient(addr))
		}
		report, err := askStatus(ctx, clients)
		if err != nil {
			return explainSocket(err)
		}
		notes := agentapi.Notes{Root: root}
		for _, p := range notes.All(agentapi.Problem) {
			report.Notes = append(report.Notes, "configuration refused: "+p)
		}
		report.Notes = append(report.Notes, notes.All(agentapi.Note)...)
		return writeStatus(env, report, output)
	}
	return cmd
}

// askStatus asks the first client that answers. The read-only API serves
// whoever may not use the socket.
func askStatus(ctx context.Context, clients []*api.Client) (statusReport, error) {
	var firstErr error
	for _, c := range clients {
		report, err := askOne(ctx, c)
		if err == nil || !Unreachable(err) {
			return report, err
		}
		if firstErr == nil {
			firstErr = err
		}
	}
	return statusReport{}, firstErr
}

// Unreachable reports whether nobody answers, or not to this user.
func Unreachable(err error) bool {
	return errors.Is(err, api.ErrNotRunning) || errors.Is(err, api.ErrForbidden)
}

func askOne(ctx context.Context, c *api.Client) (statusReport, error) {
	defer c.CloseIdle()
	var r statusReport
	var err error
	if r.Status, err = c.Status(ctx); err != nil {
		return r, err
	}
	list, err := c.Nodes(ctx, 0, 0)
	if err != nil {
		return r, err
	}
	r.Nodes = list.Nodes
	slices.SortStableFunc(r.Nodes, func(a, b api.Node) int { return cmp.Compare(a.Name, b.Name) })
	cluster, err := c.Cluster(ctx)
	var none *api.Error
	switch {
	case err == nil:
		r.Cluster = &cluster
	case !errors.As(err, &none) || none.Status != http.StatusNotFound:
		return r, err
	}
	r.Waiting = waitingFor(r)
	return r, nil
}

// explainSocket says what to do when no local daemon answered.
func explainSocket(err error) error {
	switch {
	case errors.Is(err, api.ErrNotRunning):
		return WithHint(fmt.Errorf("no bridge and no node runs on this machine: %w", err),
			"%s", noDaemonHint)
	case errors.Is(err, api.ErrForbidden):
		return WithHint(err, "the socket belongs to another user: run the command with sudo, or as the user who started the bridge")
	}
	if errors.Is(err, api.ErrImpostor) {
		return WithHint(err, "see which program it is with `ss -xlp`; a bridge of your own can use another --socket")
	}
	var answer *api.Error
	if errors.As(err, &answer) && answer.Hint != "" {
		return WithHint(errors.New(answer.Message), "%s", answer.Hint)
	}
	return err
}

// waitingFor is one line about what is missing: this member's own words first,
// then those of its node, then the other nodes of its cluster.
func waitingFor(r statusReport) string {
	if r.Status.Waiting != "" {
		return r.Status.Waiting
	}
	if r.Cluster != nil && r.Cluster.Waiting != "" {
		return r.Cluster.Waiting
	}
	var others []string
	for _, n := range r.Nodes {
		w := n.Annotations[api.NoteWaiting]
		if w == "" || n.NetworkID != r.Status.NetworkID {
			continue
		}
		if n.Self {
			return w
		}
		others = append(others, n.Name+": "+w)
	}
	switch len(others) {
	case 0:
		return ""
	case 1:
		return others[0]
	}
	return fmt.Sprintf("%s (and %d more)", others[0], len(others)-1)
}

func writeStatus(env *Env, r statusReport, output string) error {
	if output == "json" || output == "yaml" {
		return env.WriteObject(r, output)
	}
	writeTable(env, r, output == "wide")
	return nil
}

func writeTable(env *Env, r statusReport, wide bool) {
	w := tabwriter.NewWriter(env.Result(), 0, 0, 3, ' ', 0)
	head := []string{"NAME", "ROLE", "ADDRESS", "PATH", "RTT", "LOSS", "MTU", "WHY"}
	if wide {
		head = append(head, "NETWORK", "ADDRESS6", "ENDPOINT", "SEEN", "KUBERNETES", "VERSION", "ID")
	}
	row := func(cells []string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) } // into memory
	row(head)
	for _, n := range r.Nodes {
		cells := []string{agentapi.Printable(n.Name), role(n), address(n, 0), path(n), rtt(n), loss(n), mtu(n), why(n)}
		if wide {
			cells = append(cells, agentapi.Printable(n.NetworkID), address(n, 1), OrDash(n.Endpoint), seen(n), kubernetes(n), agentapi.Printable(n.Version), n.ID.String())
		}
		row(cells)
	}
	_ = w.Flush() // into memory
	if wide {
		writePaths(env, r)
	}
	for _, c := range r.Status.Conditions {
		fmt.Fprintf(env.Result(), "%s: %s\n", c.Severity, c.Text)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(env.Result(), "note: %s\n", agentapi.Printable(n))
	}
	if r.Waiting != "" {
		fmt.Fprintf(env.Result(), "waiting for: %s\n", agentapi.Printable(strings.TrimPrefix(r.Waiting, "waiting for ")))
	}
}

// writePaths writes all paths to all peers, the chosen one with a star.
func writePaths(env *Env, r statusReport) {
	w := tabwriter.NewWriter(env.Result(), 0, 0, 3, ' ', 0)
	row := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) } // into memory
	first := true
	for _, n := range r.Nodes {
		for _, p := range n.Paths {
			if first {
				row("\nPATHS OF", "", "KIND", "FROM", "TO", "STATE", "RTT", "LOSS", "MTU", "HEARD", "WHY")
				first = false
			}
			star := ""
			if p.Chosen {
				star = "*"
			}
			row(agentapi.Printable(n.Name), star, p.Kind, local(p), remote(p), p.State, since(time.Duration(p.RTT)), fmt.Sprintf("%d%%", p.Loss), size(p.MTU),
				heard(p), OrDash(agentapi.Printable(p.Why)))
		}
	}
	_ = w.Flush() // into memory
}

func local(p api.Path) string {
	if !p.Local.IsValid() {
		return "any"
	}
	return p.Local.String()
}

func remote(p api.Path) string {
	if p.Via.IsZero() {
		return p.Remote
	}
	return p.Remote + " via " + p.Via.Short()
}

func heard(p api.Path) string {
	if p.Heard == nil {
		return "-"
	}
	return time.Duration(*p.Heard).Round(100*time.Millisecond).String() + " ago"
}

func role(n api.Node) string {
	if n.Kind == api.KindBridge {
		return "bridge"
	}
	return OrDash(agentapi.Printable(n.Annotations[api.NoteRole]))
}

// kubernetes is the version that a node runs.
func kubernetes(n api.Node) string {
	return OrDash(agentapi.Printable(n.Annotations[api.NoteKubernetes]))
}

func address(n api.Node, i int) string {
	if i >= len(n.Addresses) {
		return "-"
	}
	return n.Addresses[i].String()
}

func path(n api.Node) string {
	switch {
	case n.Self:
		return "self"
	case !n.Connected:
		return "none"
	}
	return OrDash(n.Path)
}

func rtt(n api.Node) string {
	if n.Self || !n.Connected {
		return "-"
	}
	return since(time.Duration(n.RTT))
}

// since is a round trip for people.
func since(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2fms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0fms", d.Seconds()*1e3)
}

// loss is known of what is probed.
func loss(n api.Node) string {
	if n.Self || !n.Connected || n.Path != "direct" {
		return "-"
	}
	return fmt.Sprintf("%d%%", n.Loss)
}

func mtu(n api.Node) string {
	if n.Self || !n.Connected {
		return "-"
	}
	return size(n.MTU)
}

func size(bytes int) string {
	if bytes <= 0 {
		return "-"
	}
	return strconv.Itoa(bytes)
}

func why(n api.Node) string {
	if n.Self || !n.Connected {
		return "-"
	}
	return OrDash(agentapi.Printable(n.Why))
}

func seen(n api.Node) string {
	if n.Self || n.Connected {
		return "now"
	}
	return time.Duration(n.LastSeen).Round(time.Second).String() + " ago"
}

// OrDash is a cell of a table.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
