package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"github.com/kairos-io/kairos/image/assess"
)

// tree writes files below a directory that stands in for /.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLook(t *testing.T) {
	const net = "sys/class/net/"
	root := tree(t, map[string]string{
		net + "eth0/device/vendor": "0x1af4\n", net + "eth0/address": "52:54:00:00:00:01\n", net + "eth0/flags": "0x1003\n",
		net + "eth0/ifindex": "9000002\n", net + "eth0/carrier": "1\n",
		"run/systemd/netif/links/9000002": "# This is private data.\nADMIN_STATE=configured\nOPER_STATE=routable\n",
		// Down: the kernel does not even let its carrier be read.
		net + "eth1/device/vendor": "0x8086\n", net + "eth1/address": "52:54:00:00:00:02\n", net + "eth1/flags": "0x1002\n", net + "eth1/ifindex": "9000003\n",
		// The fast path of a cloud machine's card: same MAC, and no life of its own.
		net + "enP1/device/vendor": "0x15b3\n", net + "enP1/address": "52:54:00:00:00:01\n", net + "enP1/flags": "0x1803\n",
		net + "enP1/ifindex": "9000004\n", net + "enP1/carrier": "1\n", net + "enP1/master/name": "eth0\n",
		// No device behind it.
		net + "kairos0/address": "\n", net + "kairos0/flags": "0x1091\n", net + "kairos0/ifindex": "9000005\n",
	})
	n, err := Look(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []assess.Card{
		{Name: "eth0", MAC: "52:54:00:00:00:01", Up: true, Carrier: true, Setup: "configured"},
		{Name: "eth1", MAC: "52:54:00:00:00:02"},
	}
	if !reflect.DeepEqual(n.Cards, want) {
		t.Errorf("got %+v\nwant %+v", n.Cards, want)
	}
}

func TestLookSaysWhatItCannotRead(t *testing.T) {
	const net = "sys/class/net/"
	for name, files := range map[string]map[string]string{
		"no /sys":                    {},
		"an index that is no number": {net + "e/device/x": "", net + "e/address": "a\n", net + "e/flags": "0x1\n", net + "e/ifindex": "two\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if n, err := Look(tree(t, files)); err == nil {
				t.Errorf("got %+v", n)
			}
		})
	}
}

// The kernel's own tables parse, whatever is in them.
func TestTablesOfThisMachine(t *testing.T) {
	if _, err := addresses(); err != nil {
		t.Error(err)
	}
	if _, err := gateways(); err != nil {
		t.Error(err)
	}
	if _, err := neighbours(); err != nil {
		t.Error(err)
	}
}

func word(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func TestParseAddress(t *testing.T) {
	head := func(bits, flags byte) []byte { return append([]byte{syscall.AF_INET, bits, flags, 0}, word(7)...) }
	tests := []struct {
		name string
		m    message
		want string // "" for none
	}{
		{"configured", message{head(24, 0x80), map[uint16][]byte{syscall.IFA_LOCAL: {10, 0, 0, 5}, syscall.IFA_ADDRESS: {10, 0, 0, 5}}}, "10.0.0.5/24 true"},
		{"leased", message{head(24, 0), map[uint16][]byte{syscall.IFA_LOCAL: {10, 0, 0, 5}}}, "10.0.0.5/24 false"},
		{"the long flags win", message{head(24, 0x80), map[uint16][]byte{syscall.IFA_LOCAL: {10, 0, 0, 5}, ifaFlagsAttr: word(0x200)}}, "10.0.0.5/24 false"},
		{"the own end of a point-to-point link", message{head(32, 0x80), map[uint16][]byte{syscall.IFA_LOCAL: {10, 0, 0, 5}, syscall.IFA_ADDRESS: {10, 0, 0, 6}}}, "10.0.0.5/32 true"},
		{"link-local", message{head(64, 0x80), map[uint16][]byte{syscall.IFA_ADDRESS: netip.MustParseAddr("fe80::1").AsSlice()}}, ""},
		{"loopback", message{head(8, 0x80), map[uint16][]byte{syscall.IFA_LOCAL: {127, 0, 0, 1}}}, ""},
		{"none", message{head(8, 0x80), nil}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if a, ok := parseAddress(tt.m); ok {
				got = fmt.Sprint(a.prefix, " ", a.permanent)
				if a.index != 7 {
					t.Errorf("index %d", a.index)
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseGateway(t *testing.T) {
	head := func(bits, table byte) []byte {
		return []byte{syscall.AF_INET, bits, 0, 0, table, 0, 0, 1, 0, 0, 0, 0}
	}
	via := map[uint16][]byte{syscall.RTA_GATEWAY: {10, 0, 0, 1}, syscall.RTA_OIF: word(7)}
	tests := []struct {
		name string
		m    message
		want string
	}{
		{"default route", message{head(0, syscall.RT_TABLE_MAIN), via}, "10.0.0.1"},
		{"with a zone", message{head(0, syscall.RT_TABLE_MAIN), map[uint16][]byte{
			syscall.RTA_GATEWAY: netip.MustParseAddr("fe80::1").AsSlice(), syscall.RTA_OIF: word(7)}}, "fe80::1%if7"},
		{"another network", message{head(24, syscall.RT_TABLE_MAIN), via}, ""},
		{"another table", message{head(0, 42), via}, ""},
		{"straight onto the link", message{head(0, syscall.RT_TABLE_MAIN), nil}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if g, ok := parseGateway(tt.m, func(i int) string { return fmt.Sprint("if", i) }); ok {
				got = g.String()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseNeighbour(t *testing.T) {
	for state, want := range map[uint16]bool{nudReachable: true, nudPermanent: true, 0x04: false, 0x20: false, 0x01: false} {
		head := append([]byte{syscall.AF_INET, 0, 0, 0}, word(7)...)
		head = append(binary.NativeEndian.AppendUint16(head, state), 0, 0)
		if _, ok := parseNeighbour(message{head, map[uint16][]byte{ndaDst: {10, 0, 0, 1}}}); ok != want {
			t.Errorf("state %#x: %v", state, ok)
		}
	}
}

func TestTornAttributes(t *testing.T) {
	attr := func(n, kind uint16, data ...byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, n)
		return append(binary.NativeEndian.AppendUint16(b, kind), data...)
	}
	whole := attr(5, 1, 'x', 0, 0, 0)
	for name, b := range map[string][]byte{
		"one": whole, "longer than there is": append(whole, attr(200, 2, 'y')...), "of no length": append(whole, attr(0, 2)...), "half a head": append(whole, 1, 0),
	} {
		t.Run(name, func(t *testing.T) {
			if got := attributes(b); len(got) != 1 || string(got[1]) != "x" {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestAsk(t *testing.T) {
	errs := map[string]error{
		"10.0.0.1:1": syscall.ECONNREFUSED, "10.0.0.2:1": syscall.EHOSTUNREACH, "10.0.0.3:1": syscall.EPERM,
		"10.0.0.4:1": os.ErrDeadlineExceeded, "10.0.0.5:1": context.DeadlineExceeded, "10.0.0.6:1": syscall.ENETUNREACH,
		"10.0.0.7:1": errors.New("what is this"),
	}
	want := []assess.Answer{assess.Refused, assess.Unreachable, assess.Forbidden, assess.Silent, assess.Silent, assess.Unreachable, assess.Unreachable, assess.Accepted}
	var probes []assess.Probe
	for i := range len(want) {
		probes = append(probes, assess.Probe{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 1)})
	}
	dial := func(_ context.Context, _, to string) (net.Conn, error) {
		if err := errs[to]; err != nil {
			return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}
		}
		here, there := net.Pipe()
		_ = there.Close()
		return here, nil
	}
	n := Network{Cards: []assess.Card{{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.6/30")}}}}
	got, err := n.Ask(t.Context(), dial, probes)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range got {
		last := probes[i].Addr.Addr().As4()[3]
		if h.Answer != want[i] || h.Probe != probes[i] || h.OnLink != (last >= 4 && last < 8) {
			t.Errorf("%s: %+v, want %s", probes[i].Addr, h, want[i])
		}
	}
}

// A real listener, and a port that was one.
func TestTryOnLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	var d net.Dialer
	if a := Try(t.Context(), d.DialContext, at); a != assess.Accepted {
		t.Errorf("open: %s", a)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if a := Try(t.Context(), d.DialContext, at); a != assess.Refused {
		t.Errorf("closed: %s", a)
	}
}
