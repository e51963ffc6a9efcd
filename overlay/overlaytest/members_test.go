package overlaytest

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/mesh"
)

// BenchmarkMembers is what members cost that are all connected to each other and have
// nothing to say, N of them in one process: memory, goroutines, and what they send in a
// minute. Traffic is that of the loopback interface: run it in a network namespace of its
// own, as `make bench` does, which runs this file in an older tree as well.
func BenchmarkMembers(b *testing.B) {
	for _, n := range []int{16, 64, 250} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				measureMembers(b, n)
			}
		})
	}
}

const (
	membersPatience = 2 * time.Minute  // for one that joins, and for what it does
	membersSettle   = 30 * time.Second // connections that others replaced are closed by then
	membersIdle     = time.Minute
)

func measureMembers(b *testing.B, n int) {
	before := footprint()
	net := &Net{t: b}
	defer func() { // the next size starts with nothing
		var stopping sync.WaitGroup // one after the other, who is left would call who is gone
		for _, node := range net.Nodes {
			stopping.Go(node.Stop)
		}
		stopping.Wait()
	}()
	begin := time.Now()
	for i := range n {
		net.join(b)
		for deadline := time.Now().Add(membersPatience); !allConnected(net); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				b.Fatalf("member %d of %d is not connected to all after %s: %s", i+1, n, membersPatience, missing(net))
			}
		}
	}
	connected := time.Since(begin)
	time.Sleep(membersSettle)
	after, sent := footprint(), loopbackBytes(b)
	time.Sleep(membersIdle)
	sent = loopbackBytes(b) - sent
	if !allConnected(net) {
		b.Fatalf("%d members do not stay connected", n)
	}
	per := func(value float64, unit string) { b.ReportMetric(value/float64(n), unit+"/member") }
	per(float64(after.goroutines-before.goroutines), "goroutines")
	per(float64(after.memory-before.memory)/1024, "KiB")
	per(float64(sent)/1024, "KiB/min")
	b.ReportMetric(connected.Seconds(), "s-to-connect")
}

// join starts one more node. They start one after the other: processors that are shared
// by all of them are not what a mesh has whose machines are switched on at once.
func (net *Net) join(b *testing.B) {
	var opts Options
	// Each has an address of its own: a node bounds the connections from one address.
	addr := netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + len(net.Nodes))})
	opts.Mesh = func(_ int, c *mesh.Config) {
		c.Listen = []netip.AddrPort{netip.AddrPortFrom(addr, 0)}
		// Hundreds of members share these processors, and a garbage collection stops all
		// of them. No machine of a mesh is so slow that its handshakes are given up, made
		// over TCP as well, or that it counts as dead; how often it beats stays as it is.
		c.Timing = mesh.Timing{Dial: membersPatience, TCPDelay: membersPatience, Admission: membersPatience, Dead: membersPatience}
		if len(net.Nodes) > 0 {
			c.Peers = []string{net.Nodes[0].listen.String()}
		}
	}
	if len(net.Nodes) > 0 {
		opts.Keys = net.Nodes[0].net.opts.Keys
	}
	net.Nodes = append(net.Nodes, New(b, 1, opts).Nodes...)
}

func allConnected(net *Net) bool {
	for _, node := range slices.Backward(net.Nodes) { // the newest is what is waited for
		if len(node.Mesh.Peers()) != len(net.Nodes)-1 {
			return false
		}
	}
	return true
}

// missing tells who lacks connections, and what a dialler makes of it.
func missing(net *Net) string {
	var out []string
	for _, node := range net.Nodes {
		if lacks := len(net.Nodes) - 1 - len(node.Mesh.Peers()); lacks > 0 {
			out = append(out, fmt.Sprintf("%d lacks %d: %+v", node.Index, lacks, node.Mesh.Missing(1)))
		}
	}
	return fmt.Sprintf("%d members lack some, such as %s", len(out), strings.Join(out[:min(len(out), 3)], "; "))
}

type measured struct {
	goroutines int
	memory     int64 // bytes of heap and stacks in use
}

func footprint() measured {
	runtime.GC()
	runtime.GC() // what finalizers have let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return measured{runtime.NumGoroutine(), int64(m.HeapInuse + m.StackInuse)}
}

// loopbackBytes is what the loopback interface has carried so far.
func loopbackBytes(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, rest, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == "lo" {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("there is no loopback interface")
	return 0
}
