package k3s

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
)

// DefaultSocket is containerd's on Debian and nearly everywhere.
const DefaultSocket = "/run/containerd/containerd.sock"

// namespace in containerd, and the one container in it.
const (
	namespace   = "kairos"
	containerID = "k3s"
	shimRuntime = "io.containerd.runc.v2"
)

// Labels of the container; nothing in them is secret.
const (
	labelRole = "kairos.io/role"
	labelUID  = "kairos.io/cluster-uid"
	labelSpec = "kairos.io/spec"
)

// lookLimit bounds a question to containerd that has no other bound.
const lookLimit = 5 * time.Second

// Times of Stop.
const (
	stopGrace = 30 * time.Second // k3s closes its datastore well within it
	killGrace = 10 * time.Second
)

// Runtime is the k3s container in containerd. It is safe for concurrent use,
// apart from Start and Stop, which one goroutine may call at a time.
type Runtime struct {
	client *containerd.Client
	socket string
	logs   string
	cgroup string
	log    *slog.Logger
}

// Options of Open. The zero value is usable.
type Options struct {
	Socket  string // empty: DefaultSocket
	LogFile string // of k3s' own output; empty: DefaultLogFile
	Cgroup  string // of the container; empty: DefaultCgroup
	Log     *slog.Logger
}

// Open returns a Runtime. containerd need not run yet: the methods return
// ErrNoRuntime until it does.
func Open(o Options) (*Runtime, error) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if o.LogFile == "" {
		o.LogFile = DefaultLogFile
	}
	if o.Cgroup == "" {
		o.Cgroup = DefaultCgroup
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := containerd.New(o.Socket, containerd.WithDefaultNamespace(namespace), containerd.WithTimeout(2*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	return &Runtime{client: c, socket: o.Socket, logs: o.LogFile, cgroup: o.Cgroup, log: o.Log}, nil
}

// Close gives up the connection; the container lives on.
func (r *Runtime) Close() error { return r.client.Close() }

// Socket returns the path of containerd's socket.
func (r *Runtime) Socket() string { return r.socket }

// Status is the container as containerd has it.
type Status struct {
	Exists   bool // also when its process has exited
	Running  bool
	PID      uint32
	Role     Role
	UID      string // cluster
	SpecHash string // Spec.Hash of what it was made from
	ExitCode uint32 // of the last process, when not Running
	Exited   time.Time
}

// Status returns the container's state; ErrNoRuntime when containerd does not answer.
func (r *Runtime) Status(ctx context.Context) (Status, error) {
	c, labels, err := r.load(ctx)
	if err != nil || c == nil {
		return Status{}, err
	}
	s := Status{Exists: true, Role: Role(labels[labelRole]), UID: labels[labelUID], SpecHash: labels[labelSpec]}
	t, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return s, nil
	}
	if err != nil {
		return Status{}, explain("load the k3s task", err)
	}
	st, err := t.Status(ctx)
	if err != nil {
		return Status{}, explain("ask for the k3s task", err)
	}
	s.PID, s.ExitCode, s.Exited = t.Pid(), st.ExitStatus, st.ExitTime
	switch st.Status {
	case containerd.Running, containerd.Paused, containerd.Pausing:
		s.Running = true
	}
	return s, nil
}

// load returns the container, nil without an error when there is none.
func (r *Runtime) load(ctx context.Context) (containerd.Container, map[string]string, error) {
	c, err := r.client.LoadContainer(ctx, containerID)
	if errdefs.IsNotFound(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, explain("load the k3s container", err)
	}
	labels, err := c.Labels(ctx)
	if err != nil {
		return nil, nil, explain("read the k3s container's labels", err)
	}
	return c, labels, nil
}

// Start makes sure that the wanted container runs. One that runs and was made
// from the same Spec is adopted untouched; one made from another Spec is
// stopped and replaced; one that has exited is started again. Pods are not touched.
func (r *Runtime) Start(ctx context.Context, s Spec) error {
	c, labels, err := r.load(ctx)
	if err != nil {
		return err
	}
	if c != nil && labels[labelSpec] != s.Hash() {
		// What runs is not given up for an image that is not there.
		if _, _, err := r.imageConfig(ctx, s.Image); err != nil {
			return err
		}
		r.log.Info("replacing k3s: flags, environment or image changed", "image", s.Image)
		if err := r.remove(ctx, c); err != nil {
			return err
		}
		c = nil
	}
	if c == nil {
		if c, err = r.create(ctx, s); err != nil {
			return err
		}
	}
	return r.startTask(ctx, c)
}

func (r *Runtime) create(ctx context.Context, s Spec) (containerd.Container, error) {
	image, cfg, err := r.imageConfig(ctx, s.Image)
	if err != nil {
		return nil, err
	}
	if err := prepareDirs(); err != nil {
		return nil, fmt.Errorf("make directories for k3s: %w", err)
	}
	capabilities, err := hostCapabilities()
	if err != nil {
		return nil, fmt.Errorf("read the machine's capabilities: %w", err)
	}
	snapshotter, err := r.snapshotter(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.client.NewContainer(ctx, containerID,
		containerd.WithImage(image),
		containerd.WithSnapshotter(snapshotter),
		freshSnapshot(image),
		containerd.WithRuntime(shimRuntime, nil),
		containerd.WithSpec(runtimeSpec(s, cfg, host{capabilities, r.cgroup})),
		containerd.WithContainerLabels(map[string]string{labelRole: string(s.Role), labelUID: s.UID, labelSpec: s.Hash()}),
	)
	if err != nil {
		return nil, explain("create the k3s container", err)
	}
	return c, nil
}

// freshSnapshot is containerd's, after removing what an interrupted creation left.
func freshSnapshot(image containerd.Image) containerd.NewContainerOpts {
	return func(ctx context.Context, client *containerd.Client, c *containers.Container) error {
		err := client.SnapshotService(c.Snapshotter).Remove(ctx, containerID)
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove an old snapshot: %w", err)
		}
		return containerd.WithNewSnapshot(containerID, image)(ctx, client, c)
	}
}

// startTask starts the container's process unless one is running.
func (r *Runtime) startTask(ctx context.Context, c containerd.Container) error {
	t, err := c.Task(ctx, nil)
	switch {
	case errdefs.IsNotFound(err):
	case err != nil:
		return explain("load the k3s task", err)
	default:
		st, err := t.Status(ctx)
		if err != nil {
			return explain("ask for the k3s task", err)
		}
		if st.Status == containerd.Running {
			return nil // adopted
		}
		r.log.Warn("k3s had exited", "code", st.ExitStatus, "at", st.ExitTime)
		if _, err := t.Delete(ctx, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			return explain("remove the exited k3s task", err)
		}
	}
	if err := prepareLog(r.logs); err != nil {
		return err
	}
	// The shim writes the log, so that it goes on without the agent.
	t, err = c.NewTask(ctx, cio.LogFile(r.logs))
	if err != nil {
		return explain("create the k3s task", err)
	}
	if err := t.Start(ctx); err != nil {
		_, derr := t.Delete(ctx, containerd.WithProcessKill)
		return errors.Join(explain("start k3s", err), derr)
	}
	r.log.Info("k3s started", "pid", t.Pid())
	return nil
}

// Stop ends k3s, gently first, and removes the container. Its data and the pods stay.
func (r *Runtime) Stop(ctx context.Context) error {
	c, _, err := r.load(ctx)
	if err != nil || c == nil {
		return err
	}
	return r.remove(ctx, c)
}

func (r *Runtime) remove(ctx context.Context, c containerd.Container) error {
	t, err := c.Task(ctx, nil)
	switch {
	case errdefs.IsNotFound(err):
	case err != nil:
		return explain("load the k3s task", err)
	default:
		if err := stopTask(ctx, t); err != nil {
			return err
		}
	}
	if err := c.Delete(ctx, containerd.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return explain("remove the k3s container", err)
	}
	return nil
}

func stopTask(ctx context.Context, t containerd.Task) error {
	exit, err := t.Wait(ctx)
	if err != nil {
		return explain("watch the k3s task", err)
	}
	for _, step := range []struct {
		signal syscall.Signal
		grace  time.Duration
	}{{syscall.SIGTERM, stopGrace}, {syscall.SIGKILL, killGrace}} {
		if err := t.Kill(ctx, step.signal); err != nil && !errdefs.IsNotFound(err) {
			return explain("stop k3s", err)
		}
		if waitExit(ctx, exit, step.grace) {
			break
		}
	}
	if _, err := t.Delete(ctx, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
		return explain("remove the k3s task", err)
	}
	return ctx.Err()
}

func waitExit(ctx context.Context, exit <-chan containerd.ExitStatus, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-exit:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// Exited returns a channel that is closed when the process that runs now ends
// (or containerd goes away). Without a running process it is closed at once.
func (r *Runtime) Exited(ctx context.Context) (<-chan struct{}, error) {
	done := make(chan struct{})
	t, err := r.task(ctx)
	if err != nil {
		return nil, err
	}
	if t == nil {
		close(done)
		return done, nil
	}
	exit, err := t.Wait(ctx)
	if err != nil {
		return nil, explain("watch the k3s task", err)
	}
	go func() {
		<-exit // also answers when ctx ends or the connection breaks
		close(done)
	}()
	return done, nil
}

// task returns k3s' process, nil without an error when there is none. A
// containerd that hangs is not waited for: the caller's ctx may last for ever.
func (r *Runtime) task(ctx context.Context) (containerd.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	c, _, err := r.load(ctx)
	if err != nil || c == nil {
		return nil, err
	}
	t, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain("load the k3s task", err)
	}
	return t, nil
}

// explain wraps an error of the containerd client; where nothing answers, the
// sentinel replaces its talk of transports.
func explain(verb string, err error) error {
	if errdefs.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s: %w", verb, ErrNoRuntime)
	}
	return fmt.Errorf("%s: %w", verb, err)
}

func prepareLog(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the log directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("make the log file: %w", err)
	}
	return f.Close()
}
