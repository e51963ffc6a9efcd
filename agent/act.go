package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/kubeconfig"
	"github.com/kairos-io/kairos/agent/podnet"
	"github.com/kairos-io/kairos/agent/role"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// networkRefresh is how long a flushed firewall stays unnoticed.
const networkRefresh = time.Minute

// startedLimit bounds one try to win the outcome; the next turn goes on.
const startedLimit = 30 * time.Second

// outcome is what acting gave: the conditions that hold and the first failure.
type outcome struct {
	busy       bool   // something is under way or failed
	again      bool   // something was done: there may be more to do at once
	failure    string // of the step that failed, "" for none; stays the same while nothing changes
	waiting    string // one line
	conditions []health.Condition
}

// act carries the plan out in its order. After the first action that is not
// done, only those that tell something are still carried out.
func (a *agent) act(ctx context.Context, f role.Facts, plan []role.Action) outcome {
	var out outcome
	blocked, voting := false, false
	for _, step := range plan {
		if _, ok := step.(role.RunGenesis); ok {
			voting = true
		}
		if out.tell(step) || blocked {
			continue
		}
		err := a.do(ctx, f, step)
		if err == nil {
			out.again = out.again || moves(step)
			continue
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			break // the agent is being stopped
		}
		blocked, out.busy = true, true
		out.fail(step, err)
		a.report.logFailure(fmt.Sprintf("%T", step), err)
	}
	if !voting {
		a.voting.stop()
	}
	return out
}

// moves reports whether the next turn sees other facts because of the step. What
// the overlay changes wakes the loop by itself.
func moves(step role.Action) bool {
	switch step.(type) {
	case role.RunGenesis, role.Publish, role.FetchImage:
		return false
	}
	return true
}

// tell takes over what the plan has to say, and reports whether that was all of the step.
func (o *outcome) tell(step role.Action) bool {
	switch s := step.(type) {
	case role.Wait:
		o.raise(health.Condition{Code: s.Code, Severity: health.Info, Text: s.Reason, Hint: s.Hint}, health.CodeWaiting)
	case role.Ask:
		o.raise(health.Condition{Code: s.Code, Severity: health.Error, Text: s.Reason, Hint: s.Hint}, health.CodeNeedsOperator)
	case role.Note:
		c := health.Condition{Code: s.Code, Severity: health.Warning, Text: s.Reason, Hint: s.Hint}
		if s.Grave {
			c.Severity = health.Error
		}
		o.raise(c, health.CodeWaiting)
		if s.Code == health.CodeServerLost && o.waiting == "" {
			o.waiting = s.Reason // the cause of whatever else this machine waits for
		}
		return true
	default:
		return false
	}
	if o.waiting == "" {
		o.waiting = o.conditions[len(o.conditions)-1].Text
	}
	return true
}

func (o *outcome) raise(c health.Condition, code string) {
	if c.Code == "" {
		c.Code = code
	}
	o.conditions = append(o.conditions, c)
}

func (o *outcome) fail(step role.Action, err error) {
	c := health.Condition{Code: health.CodeWaiting, Severity: health.Info, Text: err.Error()}
	var pending *health.Pending
	var problem *health.Problem
	detail := ""
	switch {
	case errors.As(err, &pending):
		detail = pending.Detail
	case errors.As(err, &problem):
		c.Code, c.Hint, c.Severity, detail = problem.Code, problem.Hint, health.Error, problem.Detail
	default:
		c.Code, c.Severity = codeOf(step), health.Error
	}
	if pending == nil {
		o.failure = c.Text
	}
	o.conditions = append(o.conditions, c)
	o.waiting = c.Text // nearer to the cause than what the plan waits for
	if detail != "" {
		o.waiting += ": " + detail
	}
}

// codeOf is the condition that a failed step raises where the step itself knows none better.
func codeOf(step role.Action) string {
	switch step.(type) {
	case role.Save, role.Found:
		return health.CodeStateUnusable
	case role.PrepareImage:
		return health.CodeImage
	case role.StartServer, role.StartWorker, role.WriteMarker, role.Restart, role.Stop:
		return health.CodeK3sFailing
	case role.ApplyNetwork:
		return health.CodePodNetwork
	case role.Pin, role.Publish, role.WithdrawNetwork:
		return health.CodeOverlayDown
	case role.FetchJoin:
		return health.CodeServerLost
	}
	return health.CodeWaiting
}

// do carries one step out.
func (a *agent) do(ctx context.Context, f role.Facts, step role.Action) error {
	switch s := step.(type) {
	case role.RunGenesis:
		a.voting.start(a.votingFailed)
		return nil
	case role.Save:
		return a.save(s.State)
	case role.Abstain:
		return a.voting.abstain(s.Epoch)
	case role.Pin:
		return a.overlay.Pin(ctx)
	case role.FetchImage:
		// Whatever is wrong is told when the image is needed.
		if err := a.prepareImage(ctx); err != nil {
			a.log.Debug("the k3s image is not here yet", "err", err)
		}
		return nil
	case role.PrepareImage:
		return a.prepareImage(ctx)
	case role.ProposeStarted:
		return a.proposeStarted(ctx, s.UID)
	case role.WriteMarker:
		return a.opt.Files.WriteMarker(k3s.Marker{UID: s.UID, Epoch: s.Epoch, Role: s.Role, Servers: s.Servers})
	case role.StartServer:
		return a.startServer(ctx, s)
	case role.KeepDatastore:
		a.log.Info("copying the cluster's data before another minor version gets it", "of", s.Of.String())
		return noData(a.opt.Files.KeepDatastore(a.life, s.Of, a.beat))
	case role.RestoreDatastore:
		a.log.Warn("putting the cluster's data back as an earlier version of Kubernetes had it")
		return noData(a.opt.Files.RestoreDatastore())
	case role.DropKept:
		return noData(a.opt.Files.DropKept())
	case role.Found:
		return a.found(s.UID)
	case role.FetchJoin:
		return a.fetchJoin(ctx, s)
	case role.StartWorker:
		return a.start(ctx, k3s.Agent, s.UID)
	case role.ApplyNetwork:
		return a.applyNetwork(ctx, s.PodCIDR)
	case role.WithdrawNetwork:
		return a.overlay.SetRoutes(ctx, api.Routes{})
	case role.Publish:
		return a.overlay.SetAnnotations(ctx, s.Annotations)
	case role.Restart:
		return a.restart(ctx, s)
	case role.Stop:
		a.log.Warn("stopping k3s", "reason", s.Reason)
		return a.runtime.Stop(ctx)
	}
	return fmt.Errorf("the plan holds a step that this version does not know: %T", step)
}

// save replaces the state apart from the votes, which the agreement keeps itself.
func (a *agent) save(next store.State) error {
	if err := a.store.SaveRole(next); err != nil {
		return &health.Problem{Code: health.CodeStateUnusable, Err: err, Hint: "see to the disk of /var: free space on it, or repair it"}
	}
	a.storeStatus = role.StoreLoaded
	return nil
}

func (a *agent) votingFailed(err error) {
	a.log.Error("the agreement stopped", "err", err)
	a.voting.stopped()
}

func (a *agent) prepareImage(ctx context.Context) error {
	has, err := a.puller.Has(ctx)
	if errors.Is(err, k3s.ErrNoRuntime) {
		return noRuntime(err)
	}
	if err == nil && has {
		return nil
	}
	err = a.puller.Start(a.life, time.Now())
	if errors.Is(err, k3s.ErrNoRuntime) {
		return noRuntime(err)
	}
	return err
}

func noRuntime(err error) error {
	return &health.Problem{Code: health.CodeK3sFailing, Err: err, Hint: "see `systemctl status containerd`"}
}

// proposeStarted closes the outcome of the agreement in this node's favour.
func (a *agent) proposeStarted(ctx context.Context, cluster string) error {
	d, problem := a.voting.get()
	if d == nil {
		return fmt.Errorf("the agreement cannot be opened: %w", problem)
	}
	uid, err := genesis.ParseUID(cluster)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startedLimit)
	defer cancel()
	err = d.ProposeStarted(ctx, uid)
	if errors.Is(err, context.DeadlineExceeded) {
		return &health.Pending{Reason: "the other machines have not confirmed yet that this one may start the cluster"}
	}
	if errors.Is(err, genesis.ErrAbandoned) {
		return &health.Pending{Reason: "the others gave this cluster up before it was started; agreeing on a new one"}
	}
	return err
}

// noData explains why the cluster's data could not be copied or put back.
func noData(err error) error {
	if err == nil {
		return nil
	}
	return &health.Problem{Code: health.CodeVersion, Err: err, Hint: "see to the disk of /var: free space on it, or repair it"}
}

func (a *agent) startServer(ctx context.Context, s role.StartServer) error {
	if s.First {
		if err := a.opt.Files.EnsureTokens(); err != nil {
			return err
		}
	} else if err := a.opt.Files.HasTokens(); err != nil {
		return &health.Problem{Code: health.CodeNeedsOperator, Err: err,
			Hint: "the cluster's data is here but its tokens are not: restore " + a.opt.Files.ServerToken()}
	}
	if err := a.opt.Files.WriteManifest(kubeconfig.ManifestName, []byte(kubeconfig.Manifest)); err != nil {
		return fmt.Errorf("write a manifest: %w", err)
	}
	return a.start(ctx, k3s.Server, s.UID)
}

// restart stops k3s; the next turn starts it.
func (a *agent) restart(ctx context.Context, s role.Restart) error {
	a.log.Warn("restarting k3s", "reason", s.Reason)
	if err := a.runtime.Stop(ctx); err != nil {
		return fmt.Errorf("stop k3s, to start it anew: %w", err)
	}
	a.watch = a.watch.Restarted(s)
	return nil
}

// start runs, adopts or restarts k3s, not too often.
func (a *agent) start(ctx context.Context, r k3s.Role, uid string) error {
	now := time.Now()
	crashed := a.report.exited.Exists
	cause := a.restarts.Cause
	if crashed && cause == nil {
		cause = fmt.Errorf("k3s ended with code %d", a.report.exited.ExitCode)
	}
	if wait := a.restarts.Next.Sub(now); cause != nil && wait > 0 {
		return &health.Problem{Code: health.CodeK3sFailing, Err: cause, Hint: "see " + a.logFile(),
			Detail: "starting it again in " + wait.Round(time.Second).String()}
	}
	spec, err := a.spec(ctx, r, uid)
	if err != nil {
		return err
	}
	if crashed {
		a.log.Warn("k3s had ended", "code", a.report.exited.ExitCode, "at", a.report.exited.Exited)
		a.restarts.Failed(now, nil)
	}
	if err := a.opt.Files.SetRan(agentapi.K3sOf(spec.Image, spec.Digest)); err != nil {
		return noData(fmt.Errorf("write down which k3s starts: %w", err))
	}
	err = a.runtime.Start(ctx, spec)
	switch {
	case err == nil:
		a.restarts.Cause = nil
		return nil
	case errors.Is(err, k3s.ErrNoRuntime):
		return noRuntime(err)
	case crashed: // counted above
		a.restarts.Cause = fmt.Errorf("start k3s: %w", err)
	default:
		a.restarts.Failed(now, fmt.Errorf("start k3s: %w", err))
	}
	return a.restarts.Cause
}

func (a *agent) logFile() string {
	if a.opt.LogFile == "" {
		return k3s.DefaultLogFile
	}
	return a.opt.LogFile
}

// spec is the container that this node should run.
func (a *agent) spec(ctx context.Context, r k3s.Role, uid string) (k3s.Spec, error) {
	w := a.world.get()
	if !w.address().IsValid() {
		return k3s.Spec{}, &health.Pending{Reason: "the overlay's address of " + hostname()}
	}
	digest, err := a.puller.Wanted(ctx)
	if err != nil {
		return k3s.Spec{}, fmt.Errorf("look into the k3s image: %w", err)
	}
	flags := k3s.Flags{
		Role: r, NodeName: w.status.Name, Address: w.address(), DNSName: w.status.Name + ".kairos.internal",
		Socket: a.opt.Containerd, Files: a.opt.Files, Resolv: k3s.ResolvConf(), Extra: a.cfg.K3s.Args,
	}
	ca := ""
	if r == k3s.Agent {
		join, err := a.opt.Files.ReadJoin()
		if err != nil {
			return k3s.Spec{}, fmt.Errorf("read join information: %w", err)
		}
		if join.UID != uid || !join.Server.IsValid() {
			return k3s.Spec{}, &health.Pending{Reason: "join information from the server"}
		}
		flags.Server, ca = join.Server, join.CA.Hash()
	}
	env := map[string]string{}
	for k, v := range a.cfg.K3s.Env {
		env[k] = v.Reveal()
	}
	return k3s.Spec{Role: r, UID: uid, Image: a.puller.Image(), Digest: digest, Args: flags.Args(), Env: env, CA: ca}, nil
}

// joinRequest and joinAnswer are the bodies of joinPath.
type joinRequest struct {
	UID string `json:"uid"`
}

type joinAnswer struct {
	CA     k3s.Authority `json:"ca"`
	Token  string        `json:"token"` // secret
	Server netip.Addr    `json:"server"`
	// What only another server of the cluster is given.
	Founder []byte `json:"founder,omitempty"`
	Issuer  []byte `json:"issuer,omitempty"` // secret
}

func (a *agent) fetchJoin(ctx context.Context, s role.FetchJoin) error {
	body, err := json.Marshal(joinRequest{UID: s.UID})
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	answer, err := a.peers.Post(ctx, s.From, joinPath, body)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Hint == hintSoon {
		return &health.Pending{Reason: "the server: " + refused.Message}
	}
	if err != nil {
		return &health.Pending{Reason: "join information from the server: " + err.Error()}
	}
	var ans joinAnswer
	if err := json.Unmarshal(answer, &ans); err != nil {
		return fmt.Errorf("decode join information: %w", err)
	}
	if owner, ok := a.ownerOf(ans.Server); !ok || owner != s.From {
		return fmt.Errorf("join: the server named an address that is not its own: %s", ans.Server)
	}
	err = a.opt.Files.SaveJoin(k3s.Join{UID: s.UID, CA: ans.CA, Token: ans.Token, Server: ans.Server})
	if errors.Is(err, k3s.ErrOtherAuthority) {
		return &health.Problem{Code: health.CodeNeedsOperator, Err: fmt.Errorf("join: %w", err),
			Hint: "see whether the server was made anew, or its authority replaced by one that the old one did not sign; a machine that is to trust the new one joins again after `kairos reset --keep-identity`"}
	}
	return err
}

func (a *agent) ownerOf(addr netip.Addr) (id identity.ID, ok bool) {
	for _, n := range a.world.get().nodes {
		for _, x := range n.Addresses {
			if x == addr {
				return n.ID, true
			}
		}
	}
	return identity.ID{}, false
}

func (a *agent) applyNetwork(ctx context.Context, cidr netip.Prefix) error {
	w := a.world.get()
	if err := a.setUpNetwork(ctx, cidr, w); err != nil {
		return err
	}
	err := a.overlay.SetRoutes(ctx, api.Routes{
		Announce: []netip.Prefix{cidr},
		Accept:   api.Accept{NetworkID: a.cfg.NetworkID, Range: agentapi.PodRange},
		// Without a route to services the kernel would choose the uplink's address
		// as the source of host processes, which other nodes do not answer to.
		Local: []netip.Prefix{agentapi.ServiceRange},
	})
	if err != nil {
		return fmt.Errorf("announce the pod network: %w", err)
	}
	a.applied = appliedNet{cidr: cidr, addr: w.address(), mtu: w.status.MTU, at: time.Now()}
	return a.endStrays(ctx)
}

const restartedPods = "pods are started anew, since their addresses were of a range that this machine had before"

// endStrays ends the pods whose addresses are of another range than this node's. The
// kubelet starts them anew, with addresses of the present one.
func (a *agent) endStrays(ctx context.Context) error {
	strays, err := a.opt.PodNet.Strays(a.applied.cidr)
	a.applied.ended = 0
	if err != nil || len(strays) == 0 {
		return err
	}
	a.applied.ended, err = a.runtime.EndPods(ctx, strays)
	if a.applied.ended > 0 {
		a.log.Warn(restartedPods, "pods", a.applied.ended, "range", a.applied.cidr)
	}
	if err != nil {
		return fmt.Errorf("end pods with addresses of an earlier range: %w", err)
	}
	return nil
}

func (a *agent) setUpNetwork(ctx context.Context, cidr netip.Prefix, w snapshot) error {
	c := podnet.Config{
		PodCIDR: cidr, Pods: agentapi.PodRange, Services: agentapi.ServiceRange, Overlay: w.status.Networks,
		Interface: w.status.Interface, Address: w.address(), MTU: w.status.MTU,
	}
	if k3s.ResolvConf() != "" {
		c.Resolver = agentapi.Resolver
	}
	return a.opt.PodNet.Apply(ctx, c)
}

// keepNetwork sets the machine's part of the pod network up once more now and
// then: whoever reloads a firewall (nftables.service does) flushes our rules too.
func (a *agent) keepNetwork(ctx context.Context, out *outcome) {
	if n := a.applied.ended; n > 0 {
		out.raise(health.Condition{Severity: health.Warning, Text: fmt.Sprintf("%s: %d", restartedPods, n)}, health.CodePodNetwork)
	}
	if !a.applied.cidr.IsValid() || time.Since(a.applied.at) < networkRefresh {
		return
	}
	w := a.world.get()
	if !w.up || w.address() != a.applied.addr {
		return
	}
	if err := errors.Join(a.setUpNetwork(ctx, a.applied.cidr, w), a.endStrays(ctx)); err != nil {
		out.raise(health.Condition{Severity: health.Error, Text: err.Error()}, health.CodePodNetwork)
		a.report.logFailure("keep the pod network", err)
		return
	}
	a.applied.at = time.Now()
}
