package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/dial"
	"github.com/kairos-io/kairos/overlay/dns"
	"github.com/kairos-io/kairos/overlay/tun"
)

// awaitCondition waits until m has, or has not, the condition, and returns it.
func (m *machine) awaitCondition(t *testing.T, code string, there bool) api.Condition {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all := m.Status().Conditions
		i := slices.IndexFunc(all, func(c api.Condition) bool { return c.Code == code })
		switch {
		case i >= 0 && there:
			return all[i]
		case i < 0 && !there:
			return api.Condition{}
		case time.Now().After(end):
			t.Fatalf("condition %s: wanted %v, have %+v", code, there, all)
		}
	}
}

// TestTellsWhatKeepsOthersAway is fault T12: who finds nobody is told about ports and
// peers after a while, and no longer once somebody is there.
func TestTellsWhatKeepsOthersAway(t *testing.T) {
	tok := newToken(t, 2)
	a := boot(t, Options{Token: tok, Name: "alone-a", aloneAfter: 50 * time.Millisecond})
	c := a.awaitCondition(t, conditionAlone, true)
	for _, word := range []string{"UDP and TCP port", "firewall", "overlay.peers", "token"} {
		if !strings.Contains(c.Hint, word) {
			t.Errorf("%q is missing in %q", word, c.Hint)
		}
	}
	b := boot(t, Options{Token: tok, Name: "alone-b"}, a)
	a.awaitCondition(t, conditionAlone, false)
	b.client.CloseIdle()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a.awaitCondition(t, conditionAlone, true)
}

// TestOneIsNotAlone: a network of one waits for nobody.
func TestOneIsNotAlone(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 1), Name: "one", aloneAfter: time.Nanosecond})
	a.reconcile()
	if all := a.Status().Conditions; len(all) > 0 {
		t.Errorf("conditions: %+v", all)
	}
}

func TestDescribeAlone(t *testing.T) {
	for name, c := range map[string]struct {
		port uint16
		kind string
		want []string
	}{
		"node":          {4171, api.KindNode, []string{"UDP and TCP port 4171", "overlay.peers"}},
		"bridge":        {4171, api.KindBridge, []string{"UDP and TCP port 4171", "--peer host:port"}},
		"any free port": {0, api.KindNode, []string{"its UDP and TCP port through"}},
	} {
		missing := []dial.Missing{{Host: "b.example:4171"}, {}, {Addr: netip.MustParseAddrPort("192.0.2.7:4171")}}
		told := describeAlone(c.port, Options{Kind: c.kind, aloneAfter: defaultAloneAfter}, missing).(*advice)
		if want := "found for 15s; called without an answer: 192.0.2.7:4171, b.example:4171"; !strings.HasSuffix(told.text, want) {
			t.Errorf("%s: %q does not end in %q", name, told.text, want)
		}
		hint := told.hint
		for _, w := range c.want {
			if !strings.Contains(hint, w) {
				t.Errorf("%s: %q is missing in %q", name, w, hint)
			}
		}
	}
}

// TestNamesOtherRoutes is fault T10: a network of this host inside the overlay's range
// is named as soon as the kernel tells, and no longer than it is there.
func TestNamesOtherRoutes(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 1), Name: "shadow"})
	tell := func(s ...tun.Shadow) {
		a.dev.mu.Lock()
		a.dev.shadows = s
		a.dev.mu.Unlock()
		a.dev.changed <- struct{}{}
	}
	tell(tun.Shadow{Prefix: netip.MustParsePrefix("10.1.2.0/24"), Interface: "eth7"})
	c := a.awaitCondition(t, conditionShadowed, true)
	if !strings.Contains(c.Text, "10.1.2.0/24 to eth7") || !strings.Contains(c.Hint, "overlay.cidr") {
		t.Errorf("told: %+v", c)
	}
	tell()
	a.awaitCondition(t, conditionShadowed, false)
}

// TestSetsAgainWhatTheKernelLost is fault T11, this package's half: news of the
// interface makes the loop set its addresses and routes.
func TestSetsAgainWhatTheKernelLost(t *testing.T) {
	a := boot(t, Options{Token: newToken(t, 1), Name: "down"})
	a.dev.mu.Lock()
	want := a.dev.addrs
	a.dev.addrs = nil
	a.dev.mu.Unlock()
	a.dev.changed <- struct{}{}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		a.dev.mu.Lock()
		got := a.dev.addrs
		a.dev.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("addresses are %v, not %v", got, want)
		}
	}
}

// What helps against names that cannot be registered depends on who is told.
func TestUnnamed(t *testing.T) {
	none := &dns.UnavailableError{Path: "/etc/hosts", Bus: errors.New("no bus"), Hosts: syscall.EROFS}
	for kind, want := range map[string]string{api.KindBridge: "--no-dns", api.KindNode: "dns: false"} {
		n := &Node{opts: Options{Kind: kind}}
		var a *advice
		err := n.unnamed(fmt.Errorf("register: %w", none))
		if !errors.As(err, &a) || !strings.Contains(a.text, "/etc/hosts is read-only") || !strings.Contains(a.hint, want) {
			t.Errorf("%s is told %v", kind, err)
		}
	}
	for name, tt := range map[string]struct {
		bus                error
		text, hint, unlike string
	}{
		"absent": {errors.New("no bus"), "there is no systemd-resolved to ask", "dns: false", "polkit"},
		"slow":   {context.DeadlineExceeded, "systemd-resolved does not answer", "systemctl status systemd-resolved", "polkit"},
	} {
		var a *advice
		err := (&Node{}).unnamed(&dns.UnavailableError{Path: "/etc/hosts", Bus: tt.bus, Hosts: syscall.EROFS})
		if !errors.As(err, &a) || !strings.Contains(a.text, tt.text) || !strings.Contains(a.hint, tt.hint) || strings.Contains(a.hint, tt.unlike) {
			t.Errorf("%s: told %v, hint %q", name, err, a.hint)
		}
	}
	n := &Node{}
	if err := n.unnamed(nil); err != nil {
		t.Error(err)
	}
	if other := errors.New("disk full"); n.unnamed(other) != other {
		t.Error("another error changes")
	}
}

// A host that is starting may be slow once without a word (fault H8).
func TestSlowHost(t *testing.T) {
	slow := &dns.UnavailableError{Path: "/etc/hosts", Bus: context.DeadlineExceeded, Hosts: syscall.EROFS}
	var n names
	for i, tt := range []struct {
		err  error
		told bool
		wait time.Duration
	}{{slow, false, slowAgain}, {slow, true, registerAgain}, {nil, false, registerAgain}, {slow, false, slowAgain}, {syscall.EROFS, true, registerAgain}} {
		if wait, told := n.judge(tt.err); (told != nil) != tt.told || wait != tt.wait {
			t.Errorf("try %d: told %v, again after %s", i, told, wait)
		}
	}
}

// A person who looks on is told each condition once, in place of the log.
func TestTell(t *testing.T) {
	var told []api.Condition
	var log strings.Builder
	n := &Node{ctx: t.Context(), conditions: map[string]api.Condition{}, opts: Options{
		Log: slog.New(slog.NewTextHandler(&log, nil)), Tell: func(c api.Condition) { told = append(told, c) },
	}}
	for range 2 {
		n.condition(conditionDNS, "warning", &advice{text: "no names", hint: "do without"})
	}
	if len(told) != 1 || told[0].Text != "no names" || told[0].Hint != "do without" || log.Len() > 0 {
		t.Errorf("told %+v, logged %q", told, log.String())
	}
}
