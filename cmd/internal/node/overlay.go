package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/overlay"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/metrics"
	"github.com/kairos-io/kairos/systemd"
)

// defaultConfigDir is where kairos-config.service puts the merged configuration.
const defaultConfigDir = "/run/kairos/config"

// dnsListen is where a node's name server listens.
var dnsListen = netip.MustParseAddrPort("127.0.0.1:8053")

// daemonFlags are those that every daemon has, so that tests run many on one machine.
type daemonFlags struct {
	config, stateDir, runtimeDir string
}

type overlayFlags struct {
	daemonFlags
	api, dns string
	name     string
}

func newOverlay(env *cli.Env) *cobra.Command {
	var f overlayFlags
	cmd := &cobra.Command{
		Use:   "overlay",
		Short: "Run the network of this node (kairos-overlay.service)",
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "configuration (default: the credential overlay.yaml, or "+defaultConfigDir+"/overlay.yaml)")
	flags.StringVar(&f.stateDir, "state-dir", "/var/lib/kairos/overlay", "identity and address of this node")
	flags.StringVar(&f.runtimeDir, "runtime-dir", "/run/kairos/overlay", "control socket and what survives a restart only")
	flags.StringVar(&f.api, "api", cli.DefaultAPI, "loopback address of the read-only API; off for none")
	flags.StringVar(&f.dns, "dns-listen", dnsListen.String(), "address of the name server of the network")
	flags.StringVar(&f.name, "name", "", "what this machine is called (default: its host name)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opts, err := f.options(env)
		if err != nil {
			return err
		}
		return runOverlay(cmd.Context(), opts)
	}
	return cmd
}

// options reads the configuration and checks all of it before anything starts.
func (f *overlayFlags) options(env *cli.Env) (overlay.Options, error) {
	var o overlay.Options
	path := f.config
	if path == "" {
		path = defaultOverlayConfig()
	}
	cfg, err := config.LoadFile(path)
	if err != nil {
		return o, configError(err)
	}
	if o.API, err = cli.ParseAPI(f.api); err != nil {
		return o, err
	}
	if o.DNSListen, err = netip.ParseAddrPort(f.dns); err != nil {
		return o, cli.Usagef("--dns-listen: %q is not address:port such as %s", f.dns, dnsListen)
	}
	if o.Log, err = cli.NewLog(env.Stderr, string(cfg.LogLevel), cli.JournalLog); err != nil {
		return o, err
	}
	if o.Name = f.name; o.Name == "" {
		if o.Name, err = os.Hostname(); err != nil {
			return o, fmt.Errorf("read the host name: %w", err)
		}
	}
	o.Token, o.Kind, o.NetworkID, o.Version = cfg.NetworkToken, api.KindNode, cfg.NetworkID, cli.RunningVersion()
	o.Interface, o.CIDR, o.Listen, o.Peers = cfg.Overlay.Interface, cfg.Overlay.CIDR, cfg.Overlay.Listen, cfg.Overlay.Peers
	o.Metrics = metrics.Handler
	o.MDNS, o.MTU, o.DNS = cfg.Overlay.MDNS, cfg.Overlay.MTU, cfg.DNS
	o.Exclude = []netip.Prefix{agentapi.PodRange, agentapi.ServiceRange}
	o.StateDir, o.RuntimeDir, o.Persist = f.stateDir, f.runtimeDir, true
	o.Socket, o.SocketUID = filepath.Join(f.runtimeDir, "overlay.sock"), -1
	return o, nil
}

// defaultOverlayConfig is the credential that the unit loads (systemd.exec(5),
// LoadCredential=), which only the daemon's user can read.
func defaultOverlayConfig() string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		return filepath.Join(dir, config.OverlayFile)
	}
	return filepath.Join(defaultConfigDir, config.OverlayFile)
}

func runOverlay(ctx context.Context, opts overlay.Options) error {
	node, err := overlay.Start(ctx, opts)
	if err != nil {
		return cli.ExplainStart(err, opts)
	}
	var notifier systemd.Notifier
	tell := func(err error) {
		if err != nil {
			opts.Log.Warn("cannot tell systemd", "err", err)
		}
	}
	s := node.Status()
	opts.Log.Info("the network is up", "name", s.Name, "addr", s.Addresses[0].String(), "interface", s.Interface, "version", s.Version)
	tell(notifier.Ready())
	go func() { tell(systemd.Watchdog(node.Context(), node.Alive)) }()
	// The line that `systemctl status` shows.
	go cli.Follow(node, func(line string) { tell(notifier.Status(node.Status().Addresses[0].String() + ", " + line)) })
	context.AfterFunc(ctx, func() { tell(notifier.Stopping()) })
	if err := node.Wait(); err != nil {
		return fmt.Errorf("the network failed: %w", err)
	}
	return nil
}
