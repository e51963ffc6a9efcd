package role

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

const (
	uidA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	uidB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

var (
	self, other = identity.ID{1}, identity.ID{2}
	pods        = netip.MustParsePrefix("10.42.3.0/24")
	impostor    = Server{ID: identity.ID{3}, Name: "box-3", UID: uidA, Endpoint: "10.9.0.3:6443", CAHash: "ca-x", Connected: true}
	serverOfA   = Server{ID: other, Name: "box-2", UID: uidA, Endpoint: "10.9.0.2:6443", CAHash: "ca-a", Connected: true}
)

// brief writes an action so that a table can be read.
func brief(a Action) string {
	switch a := a.(type) {
	case Wait:
		return "wait " + a.Code
	case Ask:
		return "ask " + a.Code
	case Note:
		return "note " + a.Code
	case Save:
		return strings.TrimSpace(fmt.Sprintf("save %s %s", a.State.Phase, a.State.Role))
	case Abstain:
		return fmt.Sprintf("abstain %d", a.Epoch)
	case WriteMarker:
		return fmt.Sprintf("mark %s", a.Role)
	case StartServer:
		if a.First {
			return "start server first"
		}
		return "start server"
	case KeepDatastore:
		return "keep " + minorOf(a.Of)
	case RestoreDatastore:
		return "restore"
	case DropKept:
		return "drop"
	case ApplyNetwork:
		return "network " + a.PodCIDR.String()
	default:
		return map[reflect.Type]string{
			reflect.TypeFor[RunGenesis](): "genesis", reflect.TypeFor[Pin](): "pin", reflect.TypeFor[FetchImage](): "fetch image", reflect.TypeFor[PrepareImage](): "image",
			reflect.TypeFor[ProposeStarted](): "propose started", reflect.TypeFor[FetchJoin](): "fetch join", reflect.TypeFor[Found](): "found",
			reflect.TypeFor[StartWorker](): "start worker", reflect.TypeFor[WithdrawNetwork](): "withdraw network", reflect.TypeFor[Stop](): "stop", reflect.TypeFor[Restart](): "restart", reflect.TypeFor[Publish](): "publish",
		}[reflect.TypeOf(a)]
	}
}

// fresh is a machine at its first boot, with the overlay up.
func fresh() Facts {
	return Facts{
		Self: self, NetworkID: "home", ClusterEnabled: true, Store: StoreEmpty, OverlayUp: true,
		Marker: Marker{Presence: Absent}, Datastore: Absent, K3s: K3s{Container: Absent}, Image: Absent,
		Genesis: Genesis{Epoch: 1, Waiting: "need 2 machines of 3 to agree, see 1"},
	}
}

// named is a machine whose cluster is decided; server says whether it is this one's to create.
func named(server, started bool) Facts {
	f := fresh()
	f.Store, f.Image, f.Pinned = StoreLoaded, Present, true
	f.Genesis = Genesis{Epoch: 1, Decision: &Decision{UID: uidA, Epoch: 1, Servers: []identity.ID{other}, Started: started}}
	f.State = store.State{NetworkID: "home", Phase: store.Decided, Role: store.Worker, ClusterUID: uidA, Epoch: 1, Servers: []identity.ID{other}}
	if server {
		f.Genesis.Decision.Servers, f.State.Servers, f.State.Role = []identity.ID{self}, []identity.ID{self}, store.Server
	}
	return f
}

// running is a machine in everyday life.
func running(r store.Role) Facts {
	f := named(r == store.Server, true)
	f.State.Phase, f.State.PodCIDR, f.PodCIDR, f.AppliedPodCIDR = store.Running, pods, pods, pods
	f.Marker = Marker{Presence: Present, UID: uidA, Epoch: 1, Role: r}
	f.K3s = K3s{Container: Present, Running: true, Ready: true, Role: r, UID: uidA}
	if r == store.Server {
		f.Datastore = Present
		f.Servers = []Server{{ID: self, Name: "box-1", UID: uidA, Endpoint: "10.9.0.1:6443", CAHash: "ca-a", Connected: true}}
	} else {
		f.JoinUID, f.JoinCAHash = uidA, "ca-a"
		f.JoinEndpoint = serverOfA.Endpoint
		f.Servers = []Server{serverOfA}
	}
	return f
}

// booted is running right after a reboot: k3s is down and nobody is there.
func booted(r store.Role) Facts {
	f := running(r)
	f.K3s = K3s{Container: Present, Role: r, UID: uidA}
	f.Servers, f.PodCIDR, f.AppliedPodCIDR = nil, netip.Prefix{}, netip.Prefix{}
	f.Genesis.Decision = nil
	f.Pinned = true
	return f
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name  string
		facts Facts
		with  func(f *Facts)
		want  []string
	}{
		// Before anything.
		{"cluster disabled", fresh(), func(f *Facts) { f.ClusterEnabled = false }, nil},
		{"cluster disabled while k3s runs", running(store.Worker), func(f *Facts) { f.ClusterEnabled = false }, []string{"withdraw network", "stop"}},
		{"cluster disabled, k3s has exited", booted(store.Server), func(f *Facts) { f.ClusterEnabled = false }, []string{"stop"}},
		{"cluster disabled, overlay down", running(store.Worker), func(f *Facts) { f.ClusterEnabled, f.OverlayUp = false, false }, []string{"stop"}},
		{"cluster disabled, containerd does not answer, k3s ran here", running(store.Worker), func(f *Facts) {
			f.ClusterEnabled, f.K3s, f.AppliedPodCIDR = false, K3s{}, netip.Prefix{}
		}, []string{"wait Waiting"}},
		{"cluster disabled, no containerd, k3s never ran here", fresh(), func(f *Facts) { f.ClusterEnabled, f.K3s = false, K3s{} }, nil},
		{"leaving, k3s runs", running(store.Worker), func(f *Facts) { f.Leaving = true }, []string{"withdraw network", "stop"}},
		{"leaving, everything is gone already", running(store.Worker), func(f *Facts) { f.Leaving, f.K3s, f.AppliedPodCIDR = true, K3s{Container: Absent}, netip.Prefix{} }, nil},
		{"leaving with a state that cannot be used", running(store.Worker), func(f *Facts) { f.Leaving, f.Store, f.StateProblem = true, StoreUnusable, "damaged" },
			[]string{"withdraw network", "stop"}},
		{"leaving before there is a cluster", fresh(), func(f *Facts) { f.Leaving = true }, nil},
		{"first boot", fresh(), nil, []string{"genesis", "fetch image", "wait Waiting"}},
		{"first boot, the image came with the OS", fresh(), func(f *Facts) { f.Image = Present }, []string{"genesis", "wait Waiting"}},
		{"first boot without the overlay", fresh(), func(f *Facts) { f.OverlayUp = false }, []string{"wait OverlayDown"}},
		{"first boot, voted already", fresh(), func(f *Facts) { f.Store, f.State = StoreLoaded, store.State{NetworkID: "home", Phase: store.Promised} },
			[]string{"genesis", "fetch image", "wait Waiting"}},
		{"containerd does not answer yet: may have lost its memory, must not vote", fresh(), func(f *Facts) { f.K3s.Container = Unknown }, []string{"wait Waiting"}},
		{"data directory unreadable: must not vote", fresh(), func(f *Facts) { f.Datastore = Unknown }, []string{"wait Waiting"}},
		{"forgotten facts are unknown, not absent", Facts{ClusterEnabled: true, Store: StoreEmpty, OverlayUp: true}, nil, []string{"wait Waiting"}},

		// Unreadable state is not empty state.
		{"state unusable on a machine that looks fresh", fresh(), func(f *Facts) { f.Store = StoreUnusable }, []string{"ask StateUnusable"}},
		{"state unusable on a running server", running(store.Server), func(f *Facts) { f.Store, f.State = StoreUnusable, store.State{} }, []string{"ask StateUnusable"}},
		{"state unusable on a stopped server", booted(store.Server), func(f *Facts) { f.Store, f.State = StoreUnusable, store.State{} }, []string{"ask StateUnusable"}},
		{"other network_id", running(store.Worker), func(f *Facts) { f.NetworkID = "office" }, []string{"ask NetworkChanged"}},
		{"other network_id after a mere vote", fresh(), func(f *Facts) {
			f.Store, f.State = StoreLoaded, store.State{NetworkID: "office", Phase: store.Promised}
		},
			[]string{"ask NetworkChanged"}},

		// Votes that cannot be used are not none.
		{"votes of another token, voted only", fresh(), func(f *Facts) {
			f.Store, f.State, f.Genesis.Problem, f.Genesis.Foreign = StoreLoaded, store.State{NetworkID: "home", Phase: store.Promised}, "votes", true
		}, []string{"ask NetworkChanged"}},
		{"votes damaged, and this machine was named", named(true, true), func(f *Facts) { f.Genesis = Genesis{Problem: "damaged"} }, []string{"ask StateUnusable"}},
		{"votes damaged, k3s' marker is there: not restored without them", booted(store.Worker), func(f *Facts) { lose(f); f.Genesis.Problem = "damaged" }, []string{"ask StateUnusable"}},
		{"votes damaged on a running server: it goes on", running(store.Server), func(f *Facts) { f.Genesis = Genesis{Problem: "damaged"} }, []string{"note StateUnusable"}},
		{"votes of another token on a worker after a reboot: it goes on", booted(store.Worker), func(f *Facts) { f.Genesis = Genesis{Problem: "votes", Foreign: true} },
			[]string{"note NetworkChanged", "note ServerLost", "network 10.42.3.0/24", "start worker", "wait Waiting"}},

		// State lost.
		{"datastore present, state missing, marker of a server", booted(store.Server), lose, []string{"abstain 1", "save running server"}},
		{"datastore present, state missing, no marker", booted(store.Server), func(f *Facts) { lose(f); f.Marker = Marker{Presence: Absent} }, []string{"ask NeedsOperator"}},
		{"datastore present, state missing, marker unreadable", booted(store.Server), func(f *Facts) { lose(f); f.Marker = Marker{} }, []string{"wait Waiting"}},
		{"datastore and state missing, marker of a server", booted(store.Server), func(f *Facts) { lose(f); f.Datastore = Absent }, []string{"ask NeedsOperator"}},
		{"state missing, marker of a worker", booted(store.Worker), lose, []string{"abstain 1", "save starting worker"}},
		{"state missing, container there, no marker", booted(store.Worker), func(f *Facts) { lose(f); f.Marker = Marker{Presence: Absent} }, []string{"ask NeedsOperator"}},
		{"a vote in the state does not hide a datastore", booted(store.Server), func(f *Facts) { f.State = store.State{NetworkID: "home", Phase: store.Promised} },
			[]string{"abstain 1", "save running server"}},

		{"state missing, the address pinned: it took part in something", fresh(), func(f *Facts) { f.Pinned = true }, []string{"abstain 18446744073709551615"}},
		{"state of an earlier day, the address pinned", fresh(), func(f *Facts) {
			f.Pinned, f.Store, f.State = true, StoreLoaded, store.State{NetworkID: "home", Phase: store.Promised}
		}, []string{"abstain 18446744073709551615"}},
		{"state missing, the address pinned, the overlay away: later", fresh(), func(f *Facts) { f.Pinned, f.OverlayUp = true, false }, []string{"wait OverlayDown"}},
		{"it abstains: asks, and goes on listening", fresh(), func(f *Facts) { f.Pinned, f.Genesis.Abstains = true, true }, []string{"genesis", "fetch image", "ask NeedsOperator"}},
		{"it abstains, and a cluster is proven: joins it", named(false, true), func(f *Facts) {
			f.Genesis.Abstains, f.Store, f.State = true, StoreEmpty, store.State{}
			f.Servers = []Server{serverOfA}
		}, []string{"genesis", "save decided worker", "fetch join", "wait Waiting"}},
		{"it abstains, and is named: cannot win the start", named(true, false), func(f *Facts) { f.Genesis.Abstains = true }, []string{"genesis", "ask NeedsOperator"}},
		{"abandoned after the address was pinned: votes again", fresh(), func(f *Facts) {
			f.Pinned, f.Store, f.State, f.Genesis.Epoch = true, StoreLoaded, store.State{NetworkID: "home", Phase: store.Promised}, 2
		}, []string{"genesis", "fetch image", "wait Waiting"}},
		{"came back with its identity, knows the decision: votes again", named(false, true), func(f *Facts) {
			f.State, f.Servers = store.State{NetworkID: "home", Phase: store.Promised}, []Server{serverOfA}
		}, []string{"genesis", "save decided worker", "fetch join", "wait Waiting"}},

		// Decided.
		{"decided: named", named(true, false), func(f *Facts) { f.State, f.Pinned, f.Image = store.State{}, false, Absent },
			[]string{"genesis", "save decided server", "pin", "image", "wait Waiting"}},
		{"decided: another is named", named(false, false), func(f *Facts) { f.State, f.Pinned, f.Image = store.State{}, false, Absent },
			[]string{"genesis", "save decided worker", "pin", "image", "wait Waiting"}},
		{"named, not started: asks for leave first", named(true, false), nil, []string{"genesis", "propose started", "wait Waiting"}},
		{"named, started: starts once", named(true, true), nil, []string{"genesis", "mark server", "save starting server", "start server first", "wait Waiting"}},
		{"named, started, not pinned: never before", named(true, true), func(f *Facts) { f.Pinned = false }, []string{"genesis", "pin"}},
		{"named, but configured as worker", named(true, false), func(f *Facts) { f.Wanted = agentapi.WantedWorker }, []string{"genesis", "wait RoleNotGranted"}},
		{"not named, but configured as master", named(false, true), func(f *Facts) { f.Wanted = agentapi.WantedMaster }, []string{"genesis", "note RoleNotGranted", "wait Waiting"}},
		{"named, data of another cluster here", named(true, true), func(f *Facts) {
			f.Datastore, f.Marker = Present, Marker{Presence: Present, UID: uidB, Role: store.Server}
		}, []string{"genesis", "ask NeedsOperator"}},
		{"named, data of nobody here", named(true, true), func(f *Facts) { f.Datastore = Present }, []string{"genesis", "ask NeedsOperator"}},
		{"named, data unreadable", named(true, true), func(f *Facts) { f.Datastore = Unknown }, []string{"genesis", "wait Waiting"}},
		{"named, own data here: the state went back", named(true, true), func(f *Facts) {
			f.Datastore, f.Marker = Present, Marker{Presence: Present, UID: uidA, Role: store.Server}
		}, []string{"genesis", "save running server"}},
		{"named, own container but no data", named(true, true), func(f *Facts) { f.K3s = K3s{Container: Present, UID: uidA, Role: store.Server} },
			[]string{"genesis", "ask NeedsOperator"}},
		{"named, crashed between marker and phase", named(true, true), func(f *Facts) { f.Marker = Marker{Presence: Present, UID: uidA, Role: store.Server} },
			[]string{"genesis", "save starting server", "start server first", "wait Waiting"}},
		{"named and started, but nothing remembered: it ran before", named(true, true), func(f *Facts) { f.Store, f.State = StoreEmpty, store.State{} },
			[]string{"genesis", "ask NeedsOperator"}},
		{"named and started, with a state of before it asked for leave: it ran before", named(true, true), func(f *Facts) { f.Genesis.Abstains = true },
			[]string{"genesis", "ask NeedsOperator"}},
		{"abandoned before it was started", named(true, false), func(f *Facts) { f.Genesis = Genesis{Epoch: 2} }, []string{"genesis", "save promised", "wait Waiting"}},
		{"abandoned, then another is named", named(true, false), func(f *Facts) {
			f.Genesis = Genesis{Epoch: 2, Decision: &Decision{UID: uidB, Epoch: 2, Servers: []identity.ID{other}, Started: true}}
		}, []string{"genesis", "save decided worker", "wait Waiting"}},

		// Joining.
		{"worker waits for the server", named(false, true), nil, []string{"genesis", "wait Waiting"}},
		{"server there but not connected", named(false, true), func(f *Facts) { f.Servers = []Server{serverOfA}; f.Servers[0].Connected = false }, []string{"genesis", "wait Waiting"}},
		{"server of another cluster only", named(false, true), func(f *Facts) { f.Servers = []Server{{ID: other, UID: uidB, Connected: true}} }, []string{"genesis", "ask Conflict"}},
		{"server there", named(false, true), func(f *Facts) { f.Servers = []Server{serverOfA} }, []string{"genesis", "fetch join", "wait Waiting"}},
		{"somebody else says it is the server", named(false, true), func(f *Facts) { f.Servers = []Server{impostor} }, []string{"genesis", "wait Waiting"}},
		{"join at hand", named(false, true), func(f *Facts) { f.Servers, f.JoinUID, f.JoinCAHash = []Server{serverOfA}, uidA, "ca-a" },
			[]string{"genesis", "mark worker", "save starting worker", "start worker", "wait Waiting"}},
		{"join of another cluster at hand", named(false, true), func(f *Facts) { f.Servers, f.JoinUID = []Server{serverOfA}, uidB }, []string{"genesis", "fetch join", "wait Waiting"}},
		{"worker with a server's data", named(false, true), func(f *Facts) { f.Datastore = Present }, []string{"genesis", "ask NeedsOperator"}},

		// Server: every day and after a reboot.
		{"running server", running(store.Server), nil, []string{"genesis"}},
		{"running server, state of genesis lost", running(store.Server), func(f *Facts) { f.Genesis = Genesis{Epoch: 1, Waiting: "x"} }, []string{"genesis"}},
		{"server after a reboot, nobody there", booted(store.Server), nil, []string{"genesis", "network 10.42.3.0/24", "start server", "wait Waiting"}},
		{"server after a reboot, overlay not up", booted(store.Server), func(f *Facts) { f.OverlayUp = false }, []string{"wait OverlayDown"}},
		{"server whose data is gone", booted(store.Server), func(f *Facts) { f.Datastore = Absent }, []string{"genesis", "ask NeedsOperator"}},
		{"server whose data and marker are gone", booted(store.Server), func(f *Facts) { f.Datastore, f.Marker = Absent, Marker{Presence: Absent} }, []string{"genesis", "ask NeedsOperator"}},
		{"server whose data is gone while k3s runs", running(store.Server), func(f *Facts) { f.Datastore = Absent }, []string{"genesis", "ask NeedsOperator"}},
		{"server whose data cannot be read", booted(store.Server), func(f *Facts) { f.Datastore = Unknown }, []string{"genesis", "wait Waiting"}},
		{"running server whose data cannot be looked at", running(store.Server), func(f *Facts) { f.Datastore = Unknown }, []string{"genesis"}},
		{"server with data of another cluster", booted(store.Server), func(f *Facts) { f.Marker.UID = uidB }, []string{"genesis", "ask NeedsOperator"}},
		{"server with a lost marker", running(store.Server), func(f *Facts) { f.Marker = Marker{Presence: Absent} }, []string{"genesis", "mark server"}},
		{"server starting, marker there, no data: goes on", booted(store.Server), func(f *Facts) { f.State.Phase, f.State.PodCIDR, f.Datastore = store.Starting, netip.Prefix{}, Absent },
			[]string{"genesis", "start server first", "wait Waiting"}},
		{"server starting, no marker, no data: never again", booted(store.Server), func(f *Facts) {
			f.State.Phase, f.Datastore, f.Marker = store.Starting, Absent, Marker{Presence: Absent}
		}, []string{"genesis", "ask NeedsOperator"}},
		{"server starting, data there", booted(store.Server), func(f *Facts) { f.State.Phase, f.State.PodCIDR = store.Starting, netip.Prefix{} },
			[]string{"genesis", "start server", "wait Waiting"}},
		{"server answers for the first time", running(store.Server), func(f *Facts) {
			f.State.Phase, f.State.PodCIDR, f.PodCIDR, f.AppliedPodCIDR = store.Starting, netip.Prefix{}, netip.Prefix{}, netip.Prefix{}
		}, []string{"genesis", "save running server", "wait Waiting"}},
		{"pod range given", running(store.Server), func(f *Facts) { f.State.PodCIDR, f.AppliedPodCIDR = netip.Prefix{}, netip.Prefix{} },
			[]string{"genesis", "save running server", "network 10.42.3.0/24"}},
		{"k3s exited", running(store.Server), func(f *Facts) { f.K3s.Running, f.K3s.Ready = false, false }, []string{"genesis", "start server", "wait Waiting"}},
		{"configuration of k3s changed", running(store.Server), func(f *Facts) { f.K3s.Stale = true }, []string{"genesis", "start server"}},
		{"k3s exited and the image is gone", running(store.Server), func(f *Facts) { f.K3s.Running, f.K3s.Ready, f.Image = false, false, Absent },
			[]string{"genesis", "image", "wait Waiting"}},
		{"image gone while k3s runs", running(store.Server), func(f *Facts) { f.Image = Absent }, []string{"genesis"}},
		{"containerd away", running(store.Server), func(f *Facts) { f.K3s = K3s{} }, []string{"genesis", "wait Waiting"}},
		{"server now configured as worker", running(store.Server), func(f *Facts) { f.Wanted = agentapi.WantedWorker }, []string{"genesis", "note RoleNotGranted"}},
		{"container of another cluster", running(store.Server), func(f *Facts) { f.K3s.UID = uidB }, []string{"genesis", "stop"}},

		// Worker: every day and after a reboot.
		{"server silent for long: restarted, nothing else", running(store.Server), func(f *Facts) {
			f.K3s.Ready, f.K3s.Silence = false, Silence{For: silentLimit, Answered: true}
		}, []string{"genesis", "restart", "wait Waiting"}},
		{"server silent for a while", running(store.Server), func(f *Facts) {
			f.K3s.Ready, f.K3s.Silence = false, Silence{For: silentLimit - 1, Answered: true}
		}, []string{"genesis", "wait Waiting"}},
		{"server not up yet after a reboot", running(store.Server), func(f *Facts) {
			f.K3s.Ready, f.K3s.Silence = false, Silence{For: silentLimit}
		}, []string{"genesis", "wait Waiting"}},
		{"server silent, and to be replaced anyway", running(store.Server), func(f *Facts) {
			f.K3s.Ready, f.K3s.Stale, f.K3s.Silence = false, true, Silence{For: silentLimit, Answered: true}
		}, []string{"genesis", "start server", "wait Waiting"}},
		{"worker silent for long, its server away: nothing to gain", running(store.Worker), func(f *Facts) {
			f.K3s.Ready, f.Servers[0].Connected, f.K3s.Silence = false, false, Silence{For: time.Hour, Answered: true}
		}, []string{"genesis", "note ServerLost", "wait Waiting"}},
		{"silent while cluster.enabled is false", running(store.Server), func(f *Facts) {
			f.ClusterEnabled, f.K3s.Ready, f.K3s.Silence = false, false, Silence{For: time.Hour}
		}, []string{"withdraw network", "stop"}},
		{"running worker", running(store.Worker), nil, []string{"genesis"}},
		{"server without a founder record", running(store.Server), func(f *Facts) { f.Founder = Absent }, []string{"genesis", "found"}},
		{"the same, before its API answers", running(store.Server), func(f *Facts) { f.Founder, f.K3s.Ready = Absent, false }, []string{"genesis", "wait Waiting"}},
		{"its founder record cannot be read", running(store.Server), func(f *Facts) { f.Founder = Unknown }, []string{"genesis"}},
		{"worker without a founder record", running(store.Worker), func(f *Facts) { f.Founder = Absent }, []string{"genesis"}},
		{"its node was deleted", running(store.Worker), func(f *Facts) {
			f.K3s.Node, f.K3s.Missing = Absent, Missing{Known: true}
		}, []string{"genesis", "restart", "wait Waiting"}},
		{"its node was deleted again", running(store.Worker), func(f *Facts) {
			f.K3s.Node, f.K3s.Missing = Absent, Missing{Known: true, Restarts: 1}
		}, []string{"genesis", "wait Waiting"}},
		{"its node is not there yet", running(store.Server), func(f *Facts) { f.K3s.Node = Absent }, []string{"genesis", "wait Waiting"}},
		{"its node was deleted while it leaves", running(store.Worker), func(f *Facts) {
			f.Leaving, f.K3s.Node, f.K3s.Missing = true, Absent, Missing{Known: true}
		}, []string{"withdraw network", "stop"}},
		{"worker after a reboot, nobody there", booted(store.Worker), nil,
			[]string{"genesis", "note ServerLost", "network 10.42.3.0/24", "start worker", "wait Waiting"}},
		{"worker whose server is away", running(store.Worker), func(f *Facts) { f.Servers[0].Connected = false }, []string{"genesis", "note ServerLost"}},
		{"worker whose join information is gone", running(store.Worker), func(f *Facts) { f.JoinUID = "" }, []string{"genesis", "fetch join", "wait Waiting"}},
		{"server's address changed", running(store.Worker), func(f *Facts) { f.Servers[0].Endpoint = "10.99.0.2:6443" }, []string{"genesis", "fetch join"}},
		{"server's address changed, and k3s is to be restarted: that does not wait", running(store.Worker), func(f *Facts) {
			f.Servers[0].Endpoint, f.K3s.Stale = "10.99.0.2:6443", true
		}, []string{"genesis", "start worker", "fetch join"}},
		{"server's address changed, agent not connected", running(store.Worker), func(f *Facts) {
			f.Servers[0].Endpoint, f.Servers[0].Connected = "10.99.0.2:6443", false
		}, []string{"genesis", "note ServerLost"}},
		{"somebody else shows another address", running(store.Worker), func(f *Facts) { f.Servers = append([]Server{impostor}, f.Servers...) }, []string{"genesis"}},
		{"this machine's address changed: k3s is restarted", running(store.Worker), func(f *Facts) { f.K3s.Stale = true }, []string{"genesis", "start worker"}},
		{"worker restored from its marker", booted(store.Worker), func(f *Facts) { f.State.Phase = store.Starting },
			[]string{"genesis", "note ServerLost", "network 10.42.3.0/24", "start worker", "wait Waiting"}},
		{"server shows another CA", running(store.Worker), func(f *Facts) { f.Servers[0].CAHash = "ca-x" }, []string{"genesis", "fetch join"}},
		{"server shows another CA, k3s is down", booted(store.Worker), func(f *Facts) {
			s := serverOfA
			s.CAHash = "ca-x"
			f.Servers = []Server{s}
		}, []string{"genesis", "wait Waiting", "fetch join"}},
		{"server shows another CA, agent not connected", running(store.Worker), func(f *Facts) {
			f.Servers[0].CAHash, f.Servers[0].Connected = "ca-x", false
		}, []string{"genesis", "note ServerLost"}},
		{"server's k3s has not made its CA", running(store.Worker), func(f *Facts) { f.Servers[0].CAHash = "" }, []string{"genesis"}},
		{"somebody else shows another CA", running(store.Worker), func(f *Facts) { f.Servers = append([]Server{impostor}, f.Servers...) }, []string{"genesis"}},
		{"restored without the servers' names", running(store.Worker), func(f *Facts) { f.State.Servers, f.Servers = nil, []Server{impostor, serverOfA} }, []string{"genesis"}},
		{"worker that found a server's data", running(store.Worker), func(f *Facts) { f.Datastore = Present }, []string{"genesis", "ask NeedsOperator"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.facts
			if f.Servers != nil {
				f.Servers = slices.Clone(f.Servers)
			}
			if tt.with != nil {
				tt.with(&f)
			}
			var got []string
			for _, a := range Plan(f) {
				if _, ok := a.(Publish); !ok {
					got = append(got, brief(a))
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("plan\n got %q\nwant %q", got, tt.want)
			}
		})
	}
}

// lose takes the state away, as a wiped /var/lib/kairos does.
func lose(f *Facts) { f.Store, f.State = StoreEmpty, store.State{} }

// Whatever the facts, some things are never planned. Every combination of the
// facts that matter is tried.
func TestPlanNever(t *testing.T) {
	presences := []Presence{Unknown, Absent, Present}
	phases := []store.Phase{store.Idle, store.Promised, store.Decided, store.Starting, store.Running}
	tried := 0
	for _, status := range []StoreStatus{StoreUnusable, StoreEmpty, StoreLoaded} {
		for _, phase := range phases {
			for _, r := range []store.Role{store.Server, store.Worker} {
				for _, data := range presences {
					for _, mark := range presences {
						for _, box := range presences {
							for _, uid := range []string{uidA, uidB} {
								for _, dec := range []*Decision{nil, {UID: uidA, Epoch: 1, Servers: []identity.ID{self}}, {UID: uidA, Epoch: 1, Servers: []identity.ID{self}, Started: true}} {
									f := named(r == store.Server, false)
									f.Store, f.State.Phase, f.Datastore, f.Genesis.Decision = status, phase, data, dec
									if status != StoreLoaded {
										f.State = store.State{}
									} else if !phase.AtLeast(store.Decided) {
										f.State = store.State{Phase: phase, NetworkID: "home"}
									}
									f.Marker = Marker{Presence: mark, UID: uid, Epoch: 1, Role: r}
									f.K3s = K3s{Container: box, UID: uid, Role: r}
									for _, f.Genesis.Abstains = range []bool{false, true} {
										checkNever(t, f)
										tried++
									}
								}
							}
						}
					}
				}
			}
		}
	}
	t.Logf("RESULT %d combinations", tried)
}

func checkNever(t *testing.T, f Facts) {
	t.Helper()
	fail := func(what string) { t.Fatalf("%s\nfacts %+v\nplan %v", what, f, Plan(f)) }
	savedStarting := f.State.Phase.AtLeast(store.Starting)
	for _, a := range Plan(f) {
		switch a := a.(type) {
		case Save:
			savedStarting = savedStarting || a.State.Phase.AtLeast(store.Starting)
			if f.Store == StoreUnusable {
				fail("writes over a state that it could not read")
			}
		case StartServer:
			if !savedStarting || f.Store != StoreLoaded || !f.State.Phase.AtLeast(store.Decided) {
				fail("starts before the phase is saved")
			}
			if a.First && (f.Datastore != Absent || f.State.Phase == store.Running ||
				f.State.Phase == store.Decided && (!f.Genesis.Decision.Started || f.Genesis.Abstains) ||
				f.State.Phase == store.Starting && (f.Marker.Presence != Present || f.Marker.UID != a.UID)) {
				fail("creates a cluster without the right to")
			}
			if !a.First && f.Datastore != Present {
				fail("starts a server without its data")
			}
			if f.Marker.Presence == Present && f.Marker.UID != a.UID {
				fail("starts a server on another cluster's data")
			}
		case StartWorker:
			if !savedStarting || f.Datastore == Present {
				fail("starts a worker too early or on a server's data")
			}
		case RunGenesis:
			if f.Store == StoreUnusable {
				fail("votes without its memory")
			}
			if f.Pinned && !f.State.Phase.AtLeast(store.Decided) && f.Genesis.Decision == nil && !f.Genesis.Abstains {
				fail("votes although its key has been in a cluster")
			}
			if f.Store == StoreEmpty && (f.Datastore != Absent || f.Marker.Presence != Absent || f.K3s.Container != Absent) {
				fail("votes although it may have forgotten votes")
			}
		}
	}
}

func TestAnnotations(t *testing.T) {
	published := func(f Facts) map[string]string {
		for _, a := range Plan(f) {
			if p, ok := a.(Publish); ok {
				return p.Annotations
			}
		}
		return nil
	}
	tests := []struct {
		name string
		f    Facts
		want map[string]string
	}{
		{"first boot", fresh(), map[string]string{"phase": "", "waiting": "need 2 machines of 3 to agree, see 1"}},
		{"running server", running(store.Server), map[string]string{"phase": "running", "role": "server", "cluster.uid": uidA,
			"cluster.epoch": "1", "server": "10.9.0.1:6443", "ca": "ca-a", "ready": "true"}},
		{"running worker", running(store.Worker), map[string]string{"phase": "running", "role": "worker", "cluster.uid": uidA,
			"cluster.epoch": "1", "ready": "true"}},
		{"decided server is no server yet", named(true, false), map[string]string{"phase": "decided", "role": "server", "cluster.uid": uidA,
			"cluster.epoch": "1", "waiting": "asking the other machines for leave to start the cluster"}},
		{"with images to give", func() Facts { f := fresh(); f.Images = "abc"; return f }(), map[string]string{"phase": "", "images": "abc", "waiting": "need 2 machines of 3 to agree, see 1"}},
		{"leaving", func() Facts { f := running(store.Server); f.Leaving = true; return f }(), map[string]string{"phase": "leaving", "role.wanted": "worker"}},
		{"disabled", func() Facts { f := fresh(); f.ClusterEnabled = false; return f }(), map[string]string{"phase": "disabled", "role.wanted": "worker"}},
		{"disabled, with role: master", func() Facts { f := fresh(); f.ClusterEnabled, f.Wanted = false, agentapi.WantedMaster; return f }(), map[string]string{"phase": "disabled", "role.wanted": "worker"}},
		{"role: master", func() Facts { f := fresh(); f.Wanted = agentapi.WantedMaster; return f }(), map[string]string{"phase": "", "role.wanted": "master", "waiting": "need 2 machines of 3 to agree, see 1"}},
		{"role: master, and cannot vote", func() Facts {
			f := fresh()
			f.Wanted, f.Store, f.StateProblem = agentapi.WantedMaster, StoreUnusable, "x"
			return f
		}(),
			map[string]string{"phase": "", "role.wanted": "worker", "votes": "no", "waiting": "the agent's state cannot be used: x"}},
		{"role: master, and its votes cannot be used", func() Facts { f := fresh(); f.Wanted, f.Genesis.Problem = agentapi.WantedMaster, "x"; return f }(),
			map[string]string{"phase": "", "role.wanted": "worker", "votes": "no", "waiting": "this machine's votes cannot be used: x"}},
		{"running, and may have forgotten votes", func() Facts { f := running(store.Worker); f.Genesis.Abstains = true; return f }(),
			map[string]string{"phase": "running", "role": "worker", "cluster.uid": uidA, "cluster.epoch": "1", "ready": "true", "role.wanted": "worker", "votes": "no"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := published(tt.f)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("annotations\n got %v\nwant %v", got, tt.want)
			}
			tt.f.Published = tt.want
			if again := published(tt.f); again != nil {
				t.Errorf("published again: %v", again)
			}
		})
	}
}

// A plan is a function of the facts: it must not change them.
func TestPlanIsPure(t *testing.T) {
	f := named(true, false)
	f.State = store.State{}
	before := fmt.Sprintf("%+v", f)
	first := Plan(f)
	if after := fmt.Sprintf("%+v", f); before != after {
		t.Errorf("facts changed:\n%s\n%s", before, after)
	}
	if !reflect.DeepEqual(first, Plan(f)) {
		t.Error("the same facts give another plan")
	}
}
