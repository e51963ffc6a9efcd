package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/godbus/dbus/v5"
)

// The interface of systemd-resolved, org.freedesktop.resolve1(5).
const (
	resolvedName    = "org.freedesktop.resolve1"
	resolvedPath    = "/org/freedesktop/resolve1"
	resolvedManager = "org.freedesktop.resolve1.Manager."
)

// Address families as resolved counts them: those of Linux.
const (
	afInet  = 2
	afInet6 = 10
)

// linkServer and linkDomain are the structs (iayqs) and (sb) of resolved's methods.
type (
	linkServer struct {
		Family  int32
		Address []byte
		Port    uint16
		Name    string // for TLS
	}
	linkDomain struct {
		Domain      string
		RoutingOnly bool
	}
)

// call is one method with its arguments behind the interface's index.
type call struct {
	method   string
	args     []any
	optional bool // missing in some versions, and nothing depends on it
}

// linkCalls tell resolved: ask server about domain, also for names without a
// dot, and about nothing else; and do not ask it for what it does not have.
func linkCalls(server netip.AddrPort, domain string) []call {
	family := int32(afInet)
	if server.Addr().Is6() {
		family = afInet6
	}
	return []call{
		{method: "SetLinkDNSEx", args: []any{[]linkServer{{Family: family, Address: server.Addr().AsSlice(), Port: server.Port()}}}},
		{method: "SetLinkDomains", args: []any{[]linkDomain{{Domain: strings.TrimSuffix(domain, ".")}}}},
		{method: "SetLinkDefaultRoute", args: []any{false}, optional: true},
		{method: "SetLinkDNSSEC", args: []any{"no"}, optional: true},
		{method: "SetLinkDNSOverTLS", args: []any{"no"}, optional: true},
		{method: "SetLinkLLMNR", args: []any{"no"}, optional: true},
		{method: "SetLinkMulticastDNS", args: []any{"no"}, optional: true},
	}
}

// resolved is a connection to systemd-resolved about one interface.
type resolved struct {
	conn  *dbus.Conn
	index int32
	calls []call
}

// newResolved connects to the bus and tells resolved about the interface. It
// does not start a resolved that the host does not run.
func newResolved(ctx context.Context, cfg RegisterConfig) (*resolved, error) {
	ifc, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", cfg.Interface, err)
	}
	conn, err := connectBus(cfg.Bus)
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	r := &resolved{conn: conn, index: int32(ifc.Index), calls: linkCalls(cfg.Server, cfg.Domain)}
	if err := r.apply(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return r, nil
}

func connectBus(address string) (*dbus.Conn, error) {
	if address == "" {
		return dbus.ConnectSystemBus()
	}
	return dbus.Connect(address)
}

// apply makes all the calls. Without rights or without resolved the first one fails.
func (r *resolved) apply(ctx context.Context) error {
	for _, c := range r.calls {
		if err := r.call(ctx, c.method, c.args...); err != nil && !c.optional {
			return err
		}
	}
	return nil
}

// revert undoes apply; an interface that is gone already needs nothing.
func (r *resolved) revert(ctx context.Context) error {
	err := r.call(ctx, "RevertLink")
	var reply dbus.Error
	if errors.As(err, &reply) && reply.Name == resolvedName+".NoSuchLink" {
		return nil
	}
	return err
}

func (r *resolved) call(ctx context.Context, method string, args ...any) error {
	args = append([]any{r.index}, args...)
	err := r.conn.Object(resolvedName, resolvedPath).
		CallWithContext(ctx, resolvedManager+method, dbus.FlagNoAutoStart, args...).Err
	if err != nil {
		return fmt.Errorf("call systemd-resolved %s: %w", method, err)
	}
	return nil
}

// starts signals each time that resolved comes up anew, having forgotten the
// interface. The channel is closed with the connection.
func (r *resolved) starts(ctx context.Context) (<-chan *dbus.Signal, error) {
	err := r.conn.AddMatchSignalContext(ctx,
		dbus.WithMatchSender("org.freedesktop.DBus"),
		dbus.WithMatchInterface("org.freedesktop.DBus"),
		dbus.WithMatchMember("NameOwnerChanged"),
		dbus.WithMatchArg(0, resolvedName))
	if err != nil {
		return nil, fmt.Errorf("watch systemd-resolved: %w", err)
	}
	signals := make(chan *dbus.Signal, 8)
	r.conn.Signal(signals)
	return signals, nil
}

// isStart tells the coming of a new owner from the going of the old one.
func isStart(s *dbus.Signal) bool {
	if len(s.Body) != 3 {
		return false
	}
	owner, ok := s.Body[2].(string)
	return ok && owner != ""
}
