package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	goruntime "runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/departure"
	"github.com/kairos-io/kairos/agent/images"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/lock"
	"github.com/kairos-io/kairos/agent/peer"
	"github.com/kairos-io/kairos/agent/podnet"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/seed"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// Bounds of the loop; see pace too.
const (
	firstWait = 3 * time.Second  // for the overlay's first answer
	patience  = 15 * time.Second // with containerd, whose disk may be busy
	turnLimit = 2 * time.Minute  // of one turn's actions together
	deadAfter = 3 * time.Minute  // without a turn the agent counts as hung
)

// Notifier tells the service manager how it is; systemd.Notifier implements it.
type Notifier interface {
	Ready() error
	Status(text string) error
}

// Options of Run. Config, OverlaySocket, Socket and StateDir are required.
type Options struct {
	Config        config.Config
	Place         config.Place // where Config came from, for changes; zero: there are none
	OverlaySocket string       // of the overlay daemon
	Socket        string       // this agent's own
	StateDir      string
	Containerd    string      // socket; empty: k3s.DefaultSocket
	LogFile       string      // of k3s; empty: k3s.DefaultLogFile
	Files         k3s.Files   // k3s' data directory
	PodNet        podnet.Host // the zero value is this machine
	HostsDir      string      // containerd's mirrors; empty: oci.DefaultHostsDir
	Baked         string      // layout of the images that the OS brought; empty: oci.DefaultBaked
	LeftFile      string      // empty: departure.DefaultFile
	PeerPort      uint16      // 0: peer.Port
	// Disk measures the one that images go to, in bytes; nil: that of StateDir.
	Disk       func() (free, size uint64, err error)
	Stall      time.Duration   // of a member that gives an image; 0: seed's
	LeaveTimes departure.Times // zero: those of people
	// Trial reports whether the OS that runs is on trial, so that another one may be
	// back soon; nil: it never is.
	Trial  func() bool
	Notify Notifier
	// Watchdog runs beside the loop, calling alive now and then; nil: none.
	Watchdog func(ctx context.Context, alive func() error) error
	Log      *slog.Logger
}

// runtime is the part of k3s.Runtime that the loop uses.
type runtime interface {
	Status(ctx context.Context) (k3s.Status, error)
	Start(ctx context.Context, s k3s.Spec) error
	Stop(ctx context.Context) error
	Exited(ctx context.Context) (<-chan struct{}, error)
	EndPods(ctx context.Context, sandboxes []string) (ended int, err error)
}

// containers is containerd, as far as images go.
type containers interface {
	images.K3sImages
	images.PodImages
}

// prober asks k3s how it is; k3s.Probe implements it.
type prober interface {
	Ready(ctx context.Context) error
	Node(ctx context.Context, name string) (k3s.Node, error)
	Do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error)
}

// agent is one run. The loop's goroutine owns everything that has no other word on it.
type agent struct {
	opt     Options
	cfg     config.Config
	log     *slog.Logger
	overlay *api.Client
	peers   *peer.Peer
	runtime runtime
	store   *store.Store
	puller  *images.Puller // safe for concurrent use
	seeder  *images.Seeder // safe for concurrent use
	prober  func(k3s.Probe) prober
	world   *world               // safe for concurrent use
	voting  *voting              // safe for concurrent use
	leave   *departure.Departure // safe for concurrent use
	lock    *lock.Lock           // safe for concurrent use
	life    context.Context      // the agent's own, set before anything is served

	files        *configuration
	storeStatus  role.StoreStatus
	storeProblem string
	storeNewer   bool

	exit     exitWatch
	applied  appliedNet
	restarts role.Backoff
	watch    role.Watch
	report   reporter
	patience time.Duration // of one question to containerd
	started  time.Time     // before everything else
	lastTurn atomic.Int64  // nanoseconds after started: the wall clock may jump
	pace     pace
	ready    bool // systemd was told

	kubernetes string // version, as this machine's Node object said last
}

// Run is the node's agent. It returns nil when ctx ends or the configuration has
// changed, and an error only for what a restart may mend; everything else is waited
// out and shown.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &agent{opt: o, cfg: o.Config, log: o.Log, overlay: api.NewClient(o.OverlaySocket)}
	defer a.overlay.CloseIdle()
	if err := a.open(); err != nil {
		return err
	}
	return errors.Join(a.run(ctx), a.close())
}

// open is the line: above it the configuration was read, below it things are touched.
func (a *agent) open() error {
	rt, err := k3s.Open(k3s.Options{Socket: a.opt.Containerd, LogFile: a.opt.LogFile, Log: a.log})
	if err != nil {
		return err
	}
	a.opt.Containerd = rt.Socket()
	a.runtime = rt
	a.prober = func(p k3s.Probe) prober { return p }
	if err := a.assemble(rt); err != nil {
		return errors.Join(err, rt.Close())
	}
	return nil
}

// assemble opens the state and makes the parts of the agent.
func (a *agent) assemble(rt containers) (err error) {
	a.started, a.patience = time.Now(), patience
	if a.opt.Disk == nil {
		a.opt.Disk = images.DiskOf(a.opt.StateDir)
	}
	if a.opt.Trial == nil {
		a.opt.Trial = func() bool { return false }
	}
	at := images.Places{Hosts: a.opt.HostsDir, Baked: a.opt.Baked}
	if a.puller, err = images.NewPuller(a.cfg.K3s.Image, at, rt); err != nil {
		return err
	}
	if a.store, err = store.Open(a.opt.StateDir); err != nil {
		return fmt.Errorf("open the state: %w", err)
	}
	a.loadState()
	a.peers = peer.New(peer.Options{Overlay: a.overlay, Cluster: a.cfg.NetworkID, Port: a.opt.PeerPort, Log: a.log})
	a.world = newWorld(a.overlay, a.cfg.NetworkID, a.log)
	seeds := seed.NewClient(seed.Options{Peers: a.peers, Members: a.seedMembers, Arch: goruntime.GOARCH, Stall: a.opt.Stall, Log: a.log})
	a.seeder = images.NewSeeder(images.SeederOptions{Places: at, Images: rt, Puller: a.puller, Client: seeds, Disk: a.opt.Disk, Dir: a.opt.StateDir, Log: a.log})
	a.voting = &voting{problem: errNotOpen}
	a.leave = departure.New(departure.Options{Node: leaver{a}, NetworkID: a.cfg.NetworkID, File: a.opt.LeftFile, Times: a.opt.LeaveTimes, Log: a.log})
	if a.lock, err = lock.Open(localAPI{a}, a.opt.StateDir, a.cfg.OS.HealthTimeout); err != nil {
		a.log.Warn("it is not known whether this machine has the upgrade lock", "err", err)
	}
	a.report.log = a.log
	a.files = newConfiguration(a.opt.Place)
	a.beat()
	return nil
}

func (a *agent) close() error {
	a.peers.CloseIdle()
	var err error
	if c, ok := a.runtime.(interface{ Close() error }); ok {
		err = c.Close()
	}
	return errors.Join(err, a.store.Close())
}

// loadState reads the state once. A state that cannot be used is a fact for the
// policy, not a reason to stop: a person shall be told through all channels.
func (a *agent) loadState() {
	_, found, err := a.store.Load()
	switch {
	case err != nil:
		a.storeStatus, a.storeProblem, a.storeNewer = role.StoreUnusable, err.Error(), errors.Is(err, store.ErrNewer)
		a.log.Error("the state cannot be used", "err", err)
	case found:
		a.storeStatus = role.StoreLoaded
	default:
		a.storeStatus = role.StoreEmpty
	}
}

func (a *agent) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	a.life, a.voting.base = ctx, ctx
	g.Go(func() error { return a.world.watch(ctx) })
	g.Go(func() error { return a.watchdog(ctx) })
	g.Go(func() error { return a.serveSocket(ctx) })
	if a.cfg.Cluster.Enabled {
		g.Go(func() error { return a.servePeers(ctx) })
		g.Go(func() error { return a.seeder.Run(ctx, a.world) })
	}
	g.Go(func() error { return a.loop(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errReconfigured) {
		return err
	}
	return nil
}

// loop turns until ctx ends.
func (a *agent) loop(ctx context.Context) error {
	defer a.puller.Wait()
	defer a.voting.stop()
	defer a.leave.Wait()
	a.firstLook(ctx)
	a.leave.Resume(ctx)
	for ctx.Err() == nil {
		// Taken before looking, so that no change is missed.
		woken := a.news()
		if a.lookAtConfiguration() {
			return errReconfigured
		}
		pause := a.turn(ctx)
		a.watchExit(ctx)
		a.beat()
		a.tellReady(a.report.line())
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-woken[0]:
		case <-woken[1]:
		case <-woken[2]:
		case <-woken[3]:
		case <-woken[4]:
		case <-a.exit.done:
			a.exit.done = nil
		}
		t.Stop()
	}
	return nil
}

// news are the channels that are closed when something changes that a turn looks at.
func (a *agent) news() [5]<-chan struct{} {
	return [5]<-chan struct{}{a.world.Changed(), a.voting.Changed(), a.puller.Changed(), a.seeder.Changed(), a.leave.Changed()}
}

// firstLook gives the overlay a moment to answer, so that a start does not
// begin with a false alarm.
func (a *agent) firstLook(ctx context.Context) {
	changed := a.world.Changed()
	if a.world.get().up {
		return
	}
	t := time.NewTimer(firstWait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-t.C:
	}
}

// turn is observe, plan, act, publish. It returns when to come back at the latest.
func (a *agent) turn(life context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(life, turnLimit)
	defer cancel()
	f := a.observe(ctx)
	a.leave.Observe(f)
	plan := role.Plan(f)
	outcome := a.act(ctx, f, plan)
	if life.Err() != nil {
		return busyPause
	}
	a.keepNetwork(ctx, &outcome)
	a.publish(life, f, outcome) // also when the turn took too long: then all the more
	if err := a.lock.Keep(ctx, a.nodeName(), a.report.last.Load().Ready); err != nil {
		a.report.logFailure("keep or give back the upgrade lock", err)
	}
	if r, ok := a.runtime.(interface{ RotateLog() error }); ok {
		if err := r.RotateLog(); err != nil {
			a.report.logFailure("turn over the k3s log", err)
		}
	}
	a.report.endTurn()
	settling := f.K3s.Running && !(f.K3s.Ready && a.report.nodeReady && f.AppliedPodCIDR.IsValid())
	return a.pace.after(outcome, settling, time.Until(a.restarts.Next))
}

// exitWatch wakes the loop when k3s ends. It decides nothing.
type exitWatch struct {
	pid  uint32
	done <-chan struct{} // nil: nothing is watched
}

// watchExit watches the process that runs now. One that was watched in vain
// (containerd went away) is left to the next turns.
func (a *agent) watchExit(ctx context.Context) {
	pid := a.report.pid
	if pid == a.exit.pid {
		return
	}
	a.exit = exitWatch{pid: pid}
	if pid == 0 {
		return
	}
	done, err := a.runtime.Exited(ctx)
	if err != nil {
		a.log.Debug("k3s is not watched", "err", err)
		return
	}
	a.exit.done = done
}

func (a *agent) beat() { a.lastTurn.Store(int64(time.Since(a.started))) }

// alive is what the watchdog asks: the loop must have come round.
func (a *agent) alive() error {
	if d := time.Since(a.started) - time.Duration(a.lastTurn.Load()); d > deadAfter {
		return fmt.Errorf("no turn for %s", d.Round(time.Second))
	}
	return nil
}

func (a *agent) watchdog(ctx context.Context) error {
	if a.opt.Watchdog != nil {
		if err := a.opt.Watchdog(ctx, a.alive); err != nil {
			return fmt.Errorf("run the watchdog: %w", err)
		}
	}
	<-ctx.Done()
	return nil
}

// tellReady tells the service manager, once that the agent works and then
// whenever the line changes.
func (a *agent) tellReady(line string) {
	if a.opt.Notify == nil {
		return
	}
	if !a.ready {
		if err := a.opt.Notify.Ready(); err != nil {
			a.log.Warn("the service manager could not be told", "err", err)
		}
		a.ready = true
	}
	if a.report.told == line {
		return
	}
	a.report.told = line
	if err := a.opt.Notify.Status(line); err != nil {
		a.log.Warn("the service manager could not be told", "err", err)
	}
}

// nodeName is what the mesh and Kubernetes call this machine.
func (a *agent) nodeName() string { return a.world.get().status.Name }

// hostname is for messages before the overlay has given a name.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "this machine"
	}
	return name
}
