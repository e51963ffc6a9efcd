package overlay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/discovery"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/token"
)

// Options is everything Start needs to know. Token, Kind, Name and Interface
// are required.
type Options struct {
	Token     token.Token
	Kind      string // api.KindNode or api.KindBridge
	Name      string // what the machine is called; the member's name is this and a part of its ID
	NetworkID string // the cluster this member belongs to or looks at
	Version   string // of the software, shown to others

	Interface string
	CIDR      netip.Prefix     // IPv4 range; zero: chosen by the token
	Listen    []netip.AddrPort // underlay
	Peers     []string         // "host:port", "[v6]:port" or multiaddresses to dial, besides the token's
	MDNS      bool             // find members on the local network
	MTU       int              // 0: the best default
	DNS       bool             // resolve names of the mesh on this machine
	DNSListen netip.AddrPort   // where the mesh's name server listens; port 0 takes any
	// Exclude are ranges that never are underlay, besides the overlay's own: a
	// pod's address reaches nobody from outside.
	Exclude []netip.Prefix
	Routes  api.Routes // in force until the first SetRoutes

	StateDir   string // identity and address claim; empty: both end with the process
	StateOwner *Owner // whose files those are; nil: this process's user
	RuntimeDir string // what survives a restart but not a reboot; empty: nothing
	Persist    bool   // leave the interface up at Close, and take it over at Start

	API       netip.AddrPort // read-only HTTP, on loopback; zero: none
	Socket    string         // control socket; empty: none
	SocketUID int            // who owns the socket and may read and use Control on it, besides root; negative: this process's user
	Abstract  bool           // serve guests on the socket's abstract name too: see api.Abstract
	// Control are handlers of others on the socket: "kubeconfig" is served at
	// /control/v1/kubeconfig.
	Control map[string]http.Handler
	// Metrics makes what answers /metrics of the read-only API; nil: nothing does.
	Metrics func(scrape func() []api.Metric) http.Handler

	Log *slog.Logger
	// Tell gets each condition when it is new, for a person who looks on; nil: it is logged.
	Tell func(api.Condition)

	loopback   bool          // loopback is underlay: for tests with several nodes on one machine
	aloneAfter time.Duration // see defaultAloneAfter; tests have less time
}

// Errors of Start that a person can do something about; see also package tun.
var (
	// ErrOptions: something in Options cannot work. Nothing was started.
	ErrOptions = errors.New("invalid option")
	// ErrRunning: another overlay serves the control socket.
	ErrRunning = errors.New("another kairos network runs on this machine")
	// ErrNetwork: the state directory is that of a machine of another network than the
	// token's, in which it has a lasting place.
	ErrNetwork = errors.New("this machine belongs to another network than the token's")
	// ErrAPITaken: the address of the read-only API is in use.
	ErrAPITaken = errors.New("the address of the api is in use")
)

// check refuses what cannot work before anything is touched.
func (o *Options) check() error {
	if o.Token.IsZero() {
		return fmt.Errorf("%w: no network token", ErrOptions)
	}
	if o.Kind != api.KindNode && o.Kind != api.KindBridge {
		return fmt.Errorf("%w: kind %q is neither %s nor %s", ErrOptions, o.Kind, api.KindNode, api.KindBridge)
	}
	if o.API.IsValid() && !o.API.Addr().IsLoopback() {
		return fmt.Errorf("%w: the api listens on loopback only, not on %s", ErrOptions, o.API)
	}
	if o.MTU != 0 && (o.MTU < 1280 || o.MTU > 9000) {
		return fmt.Errorf("%w: mtu must be from 1280 to 9000, not %d", ErrOptions, o.MTU)
	}
	for _, p := range o.Peers {
		if _, err := discovery.ParsePeer(p); err != nil {
			return fmt.Errorf("%w: peer: %w", ErrOptions, err)
		}
	}
	for _, p := range o.Token.Peers() {
		if !slices.Contains(o.Peers, p) {
			o.Peers = append(slices.Clip(o.Peers), p)
		}
	}
	if o.DNS && !o.DNSListen.IsValid() {
		o.DNSListen = netip.MustParseAddrPort("127.0.0.1:0")
	}
	if o.aloneAfter == 0 {
		o.aloneAfter = defaultAloneAfter
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// MemberName is what a machine of this name and ID is called in the mesh: a DNS
// label that no other member has, since it ends in a part of the ID. It is also
// the name of its Kubernetes node, and so never changes once a member is pinned.
func MemberName(machine string, id identity.ID) string {
	const maxLabel = 63 // RFC 1035, section 2.3.4
	suffix := nameSuffix(id)
	host, _, _ := strings.Cut(machine, ".")
	host = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		}
		return '-'
	}, host)
	host = host[:min(len(host), maxLabel-len(suffix))]
	host = strings.Trim(host, "-")
	if host == "" {
		host = "node"
	}
	return host + suffix
}

func nameSuffix(id identity.ID) string { return "-" + id.Short() }

func listenTCP(addr netip.AddrPort) (net.Listener, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s: %w", addr, ErrAPITaken)
		}
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}
