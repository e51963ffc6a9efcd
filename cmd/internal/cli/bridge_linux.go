package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/kubeconfig"
	"github.com/kairos-io/kairos/agent/peer"
	"github.com/kairos-io/kairos/overlay"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/mesh"
	"github.com/kairos-io/kairos/overlay/tun"
)

// bridgeFlags are the flags of `kairos bridge`.
type bridgeFlags struct {
	token              tokenSource
	networkID, name    string
	iface, cidr        string
	api, socket        string
	listen, peers      []string
	noDNS, noMDNS      bool
	abstract           bool
	ephemeral          bool
	stateDir, logLevel string
	mtu                int
}

func newBridge(env *Env) *cobra.Command {
	var f bridgeFlags
	cmd := &cobra.Command{
		Use:   "bridge",
		Short: bridgeShort,
		Long: `Join the network of your machines from here. While the command runs, this machine
has an interface on which every node is reachable by address and by name, and
the other commands work. Ctrl-C removes everything that it made but this member's
identity, which your state directory (~/.local/state/kairos) keeps for the next time.`,
		Example: "  sudo kairos bridge --network-token-file token\n" +
			"  echo $TOKEN | sudo kairos bridge --network-token-file -",
	}
	f.token.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.networkID, "network-id", agentapi.DefaultNetworkID, "the cluster to look at, where several share the network")
	flags.StringVar(&f.iface, "interface", "kairos0", "name of the interface to make")
	flags.StringVar(&f.cidr, "cidr", "", "IPv4 range of the overlay, if the machines' configuration sets overlay.cidr")
	flags.StringVar(&f.api, "api", DefaultAPI, "loopback address of the read-only API; off for none")
	flags.StringSliceVar(&f.listen, "listen", []string{"0.0.0.0:0", "[::]:0"}, "underlay addresses to listen on (UDP and TCP); port 0 takes any")
	flags.StringSliceVar(&f.peers, "peer", nil, "a machine to call, host:port or a multiaddress; may be repeated")
	flags.StringVar(&f.name, "name", "", "what this machine is called on the network (default: its host name)")
	flags.BoolVar(&f.noDNS, "no-dns", false, "do not resolve names of the network on this machine")
	flags.BoolVar(&f.noMDNS, "no-mdns", false, "do not look for machines on the local network")
	flags.IntVar(&f.mtu, "mtu", 0, "MTU of the interface, if the machines' configuration sets overlay.mtu")
	flags.StringVar(&f.stateDir, "state-dir", "", "keep this member's identity and address here (default: below your own state directory)")
	flags.BoolVar(&f.ephemeral, "ephemeral", false, "be a new member, and keep nothing of it")
	cmd.MarkFlagsMutuallyExclusive("state-dir", "ephemeral")
	flags.StringVar(&f.socket, "socket", OverlaySocket, "control socket to make")
	flags.BoolVar(&f.abstract, "abstract-socket", os.Getenv(abstractEnv) != "", "be found by get-kubeconfig in another container with the host's network (the default in the container image)")
	flags.StringVar(&f.logLevel, "log-level", "warn", "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opts, err := f.options(env, cmd)
		if err != nil {
			return err
		}
		return bridge(cmd.Context(), env, opts, f.stateDir == "")
	}
	return cmd
}

// options checks all input, so that nothing starts on wrong input. The token
// is read first: the environment must not keep it a moment longer.
func (f *bridgeFlags) options(env *Env, cmd *cobra.Command) (overlay.Options, error) {
	var o overlay.Options
	var err error
	if o.Token, err = f.token.read(env, cmd); err != nil {
		return o, err
	}
	if err := checkNetworkID(f.networkID); err != nil {
		return o, err
	}
	if o.API, err = ParseAPI(f.api); err != nil {
		return o, err
	}
	if o.Listen, err = parseListen(f.listen); err != nil {
		return o, err
	}
	if f.cidr != "" {
		if o.CIDR, err = netip.ParsePrefix(f.cidr); err != nil {
			return o, Usagef("--cidr: %q is not an IPv4 range such as 10.144.0.0/16", f.cidr)
		}
	}
	if o.Log, err = NewLog(env.Stderr, f.logLevel, TextLog); err != nil {
		return o, err
	}
	if len(f.iface) == 0 || len(f.iface) > 15 || strings.ContainsAny(f.iface, "/ :") {
		return o, Usagef("--interface: %q is not an interface name of at most 15 characters", f.iface)
	}
	if o.Name = f.name; o.Name == "" {
		if o.Name, err = os.Hostname(); err != nil {
			return o, WithHint(fmt.Errorf("read the host name: %w", err), "give a name with --name")
		}
	}
	o.Kind, o.NetworkID, o.Version = api.KindBridge, f.networkID, RunningVersion()
	o.Interface, o.Peers, o.MDNS, o.MTU, o.DNS = f.iface, f.peers, !f.noMDNS, f.mtu, !f.noDNS
	o.Exclude = []netip.Prefix{agentapi.PodRange, agentapi.ServiceRange}
	o.Routes = api.Routes{Accept: api.Accept{NetworkID: f.networkID, Range: agentapi.PodRange}}
	o.StateDir, o.Socket, o.SocketUID, o.Abstract = f.stateDir, f.socket, sudoUID(), f.abstract
	if f.stateDir == "" && !f.ephemeral {
		keepIdentity(&o)
	}
	return o, nil
}

// sudoUID is the user behind sudo, or -1. Only root believes the variable: for
// anybody else it would be a wish.
func sudoUID() int {
	uid, err := strconv.Atoi(os.Getenv("SUDO_UID"))
	if err != nil || uid < 0 || os.Geteuid() != 0 {
		return -1
	}
	return uid
}

// bridge runs the network. With kept it is this command that chose the state
// directory, and not a person.
func bridge(ctx context.Context, env *Env, opts overlay.Options, kept bool) error {
	local := api.NewClient(opts.Socket)
	defer local.CloseIdle()
	opts.Control = bridgeControl(local, opts)
	opts.Tell = func(c api.Condition) { env.Say("%s", conditionLine(c)) }
	node, err := startBridge(ctx, env, opts, kept)
	if err != nil {
		return ExplainStart(err, opts)
	}
	s := node.Status()
	env.Say("this machine is %s on the network: %s and %s on %s", s.Name, s.Addresses[0], s.Addresses[1], s.Interface)
	if opts.API.IsValid() {
		env.Say("the nodes: `kairos status`, or http://localhost:%d", opts.API.Port())
	}
	if opts.Abstract {
		env.Say("in a second container with the host's network: `get-kubeconfig > kubeconfig`, then `kubectl --kubeconfig kubeconfig get nodes`")
	} else {
		env.Say("in a second window: `kairos get-kubeconfig > kubeconfig`, then `kubectl --kubeconfig kubeconfig get nodes`")
	}
	env.Say("Ctrl-C leaves the network")
	go Follow(node, func(line string) { env.Say("%s", line) })
	if err := node.Wait(); err != nil {
		return fmt.Errorf("the network failed: %w", err)
	}
	env.Say("left the network")
	return nil
}

// conditionLine is a condition with what helps, in one line.
func conditionLine(c api.Condition) string {
	if c.Hint == "" {
		return c.Text
	}
	return c.Text + "; " + c.Hint
}

// bridgeControl is what a bridge answers on its socket besides the overlay's
// own: it gets kubeconfigs for the person behind it, as a member among members.
func bridgeControl(local *api.Client, opts overlay.Options) map[string]http.Handler {
	agents := peer.New(peer.Options{Overlay: local, Log: opts.Log})
	client := kubeconfig.Client{Overlay: local, Peers: agents, Verify: genesis.Verifier(opts.Token)}
	return map[string]http.Handler{"kubeconfig": client.Handler()}
}

// ExplainStart adds the step that helps to why the network did not start.
func ExplainStart(err error, opts overlay.Options) error {
	switch {
	case errors.Is(err, overlay.ErrOptions):
		return UsageError{err}
	case errors.Is(err, overlay.ErrRunning):
		return WithHint(err, "this machine is on a network already: see `kairos status`; for a second one give --socket, --interface and --api")
	case errors.Is(err, overlay.ErrNetwork):
		return WithHint(err, "give it the token back that it had, or take it out of that network with `kairos reset`; a bridge can have another --state-dir")
	case errors.Is(err, overlay.ErrAPITaken):
		return WithHint(err, "choose another address with --api 127.0.0.1:PORT, or --api off")
	case errors.Is(err, mesh.ErrPortTaken):
		return WithHint(err, "choose another port with --listen 0.0.0.0:PORT, or port 0 for any")
	case errors.Is(err, tun.ErrNameTaken):
		return WithHint(err, "choose another name with --interface NAME")
	case errors.Is(err, tun.ErrNoDevice):
		return WithHint(err, "run `sudo modprobe tun`, or give the container the device /dev/net/tun")
	case errors.Is(err, tun.ErrRouteTaken):
		return WithHint(err, "this machine's network uses that range; set overlay.cidr on all machines and --cidr here")
	case errors.Is(err, tun.ErrPermission), errors.Is(err, os.ErrPermission):
		return WithHint(err, "run it with sudo")
	case errors.Is(err, overlay.ErrStateInUse):
		return WithHint(err, "stop the other one, or choose another directory with --state-dir")
	case errors.Is(err, identity.ErrKeyFile), errors.Is(err, identity.ErrKeyMode):
		return WithHint(err, "see --state-dir %s", opts.StateDir)
	}
	return err
}

// ParseAPI reads the address of the read-only API: loopback only, or off.
func ParseAPI(s string) (netip.AddrPort, error) {
	if s == "off" {
		return netip.AddrPort{}, nil
	}
	text := s
	if rest, ok := strings.CutPrefix(s, "localhost:"); ok {
		text = "127.0.0.1:" + rest
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil || addr.Port() == 0 {
		return addr, Usagef("--api: %q is not address:port such as %s, nor off", s, DefaultAPI)
	}
	if !addr.Addr().IsLoopback() {
		return addr, Usagef("--api: %s is not on loopback; the api has no login, so it never listens elsewhere", addr.Addr())
	}
	return addr, nil
}

func parseListen(list []string) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, s := range list {
		addr, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, Usagef("--listen: %q is not address:port such as 0.0.0.0:4171", s)
		}
		out = append(out, addr)
	}
	if len(out) == 0 {
		return nil, Usagef("--listen: no address")
	}
	return out, nil
}
