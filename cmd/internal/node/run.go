package node

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/agent"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/systemd"
)

type runFlags struct {
	daemonFlags
	overlay, containerd, logFile, dataDir string
}

func newRun(env *cli.Env) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the cluster agent of this node (kairos-agent.service)",
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", filepath.Join(defaultConfigDir, config.KairosFile), "configuration")
	flags.StringVar(&f.stateDir, "state-dir", "/var/lib/kairos/agent", "what this node promised and decided")
	flags.StringVar(&f.runtimeDir, "runtime-dir", filepath.Dir(cli.AgentSocket), "control socket")
	flags.StringVar(&f.overlay, "overlay-socket", cli.OverlaySocket, "control socket of the overlay")
	flags.StringVar(&f.containerd, "containerd", k3s.DefaultSocket, "socket of containerd")
	flags.StringVar(&f.dataDir, "k3s-data-dir", k3s.DefaultDataDir, "k3s' own directory")
	flags.StringVar(&f.logFile, "k3s-log", k3s.DefaultLogFile, "where k3s' own output goes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opts, err := f.options(env)
		if err != nil {
			return err
		}
		return agent.Run(cmd.Context(), opts)
	}
	return cmd
}

func (f *runFlags) options(env *cli.Env) (agent.Options, error) {
	cfg, err := config.LoadFile(f.config)
	if err != nil {
		return agent.Options{}, configError(err)
	}
	log, err := cli.NewLog(env.Stderr, string(cfg.LogLevel), cli.JournalLog)
	if err != nil {
		return agent.Options{}, err
	}
	var place config.Place
	if dir, name := filepath.Split(f.config); name == config.KairosFile && filepath.Clean(dir) == defaultConfigDir {
		place = config.Place{Root: "/", Dir: defaultConfigDir} // any other is whoever wrote it's
	}
	return agent.Options{
		Config:        cfg,
		Place:         place,
		OverlaySocket: f.overlay,
		Socket:        filepath.Join(f.runtimeDir, filepath.Base(cli.AgentSocket)),
		StateDir:      f.stateDir,
		Containerd:    f.containerd,
		LogFile:       f.logFile,
		Files:         k3s.Files{Dir: f.dataDir},
		Trial:         func() bool { return onTrial("/") },
		Notify:        systemd.Notifier{},
		Watchdog:      systemd.Watchdog,
		Log:           log,
	}, nil
}
