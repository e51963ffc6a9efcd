package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// trial is one contender in one world.
type trial struct {
	*bench
	w     *world
	n     *network
	first bool               // of the rounds
	got   map[string]float64 // by column
}

// figure is something to measure; it fills one column or more.
type figure struct {
	name    string
	measure func(context.Context, *trial) error
}

// figures in the order in which they are measured: what needs quiet comes first,
// what floods comes last. The lossy underlay is a world of its own: see loss.
var figures = []figure{
	{"rss", measureIdle},
	{"ping", measurePing},
	{"tcp1", func(ctx context.Context, t *trial) error { return measureTCP(ctx, t, 1) }},
	{"tcp4", func(ctx context.Context, t *trial) error { return measureTCP(ctx, t, 4) }},
	{"loadping", measureLoadPing},
	{"udp64", measureUDP},
	{"rss", measureRSS},
}

const (
	figureLoss = "loss"
	iperfPort  = 5201
	smallUDP   = 64   // bytes of payload
	largeUDP   = 1150 // fits every contender's MTU
)

func measureTCP(ctx context.Context, t *trial, streams int) error {
	before, err := t.cpu()
	if err != nil {
		return err
	}
	got, err := t.iperf(ctx, t.seconds, "-C", "cubic", "-P", strconv.Itoa(streams))
	if err != nil {
		return err
	}
	after, err := t.cpu()
	if err != nil {
		return err
	}
	column := "tcp" + strconv.Itoa(streams)
	t.got[column] = got.bitsPerSecond() / 1e9
	if len(t.n.daemons) > 0 {
		t.got[column+"cpu"] = (after - before).Seconds() / (got.Bytes / 1e9)
	}
	return nil
}

func measureUDP(ctx context.Context, t *trial) error {
	got, err := t.iperf(ctx, t.seconds, "-u", "-b", "0", "-l", strconv.Itoa(smallUDP))
	if err != nil {
		return err
	}
	t.got["udp64"] = got.Bytes / smallUDP / got.Seconds / 1e3
	return nil
}

func measurePing(ctx context.Context, t *trial) error {
	ms, err := t.ping(ctx, 2*time.Millisecond)
	if err != nil {
		return err
	}
	t.got["ping"] = ms * 1e3
	return nil
}

func measureLoadPing(ctx context.Context, t *trial) error {
	const lead, rest = 1, 2 // seconds of traffic before the first ping, and after the last
	server, client, err := t.startIperf(ctx, lead+t.seconds+rest, "-C", "cubic")
	if err != nil {
		return err
	}
	defer server.stop()
	defer client.stop()
	if err := pause(ctx, lead*time.Second); err != nil {
		return err
	}
	ms, err := t.ping(ctx, 10*time.Millisecond)
	if err != nil {
		return err
	}
	if client.over() {
		return client.complain("ended before the pings did")
	}
	if _, err := waitIperf(ctx, client, t.seconds); err != nil {
		return err
	}
	t.got["loadping"] = ms
	return nil
}

// measureRSS floods the daemons, once in all rounds: it takes long, and memory that
// is held because of a flood is no matter of luck.
func measureRSS(ctx context.Context, t *trial) error {
	if !t.first || len(t.n.daemons) == 0 {
		return nil
	}
	for _, size := range []int{smallUDP, largeUDP} {
		if _, err := t.iperf(ctx, max(1, t.overload/2), "-u", "-b", "0", "-l", strconv.Itoa(size)); err != nil {
			return err
		}
	}
	return t.rss("rssload")
}

// measureIdle looks at the memory of daemons that have had nothing to do yet.
func measureIdle(ctx context.Context, t *trial) error {
	if !t.first || len(t.n.daemons) == 0 {
		return nil
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	return t.rss("rss")
}

// figure measures one figure; what was measured on another way than the one that was
// asked for does not count.
func (t *trial) figure(ctx context.Context, measure func(context.Context, *trial) error) (map[string]float64, error) {
	t.got = map[string]float64{}
	if err := measure(ctx, t); err != nil {
		return nil, err
	}
	for _, p := range t.n.daemons {
		if p.over() {
			return nil, p.complain("ended in the middle")
		}
	}
	if t.n.check != nil {
		if err := t.n.check(ctx); err != nil {
			return nil, fmt.Errorf("afterwards %w", err)
		}
	}
	return t.got, nil
}

// rss is the memory of the larger of the daemons.
func (t *trial) rss(column string) error {
	var most float64
	for _, p := range t.n.daemons {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
		if err != nil {
			return err
		}
		mb, err := parseRSS(string(text))
		if err != nil {
			return err
		}
		most = max(most, mb)
	}
	t.got[column] = most
	return nil
}

// cpu is the processor time that the daemons have taken.
func (t *trial) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range t.n.daemons {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
		if err != nil {
			return 0, err
		}
		d, err := parseStat(string(text))
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// ping is the median round trip in milliseconds. It ends in time even where the
// machine is too busy to send as often as it should.
func (t *trial) ping(ctx context.Context, every time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(t.seconds+20)*time.Second)
	defer cancel()
	out, err := t.w.sides[0].output(ctx, "ping", "-n", "-w", strconv.Itoa(t.seconds), "-W", "1",
		"-i", strconv.FormatFloat(every.Seconds(), 'f', -1, 64), t.n.addr[1].String())
	if err != nil {
		return 0, err
	}
	times, sent, err := parsePing(out)
	if err != nil {
		return 0, err
	}
	return medianOf(times, sent)
}

// iperf sends from the first side to the second for some seconds.
func (t *trial) iperf(ctx context.Context, seconds int, args ...string) (traffic, error) {
	server, client, err := t.startIperf(ctx, seconds, args...)
	if err != nil {
		return traffic{}, err
	}
	defer server.stop()
	defer client.stop()
	return waitIperf(ctx, client, seconds)
}

func (t *trial) startIperf(ctx context.Context, seconds int, args ...string) (server, client *process, err error) {
	a, b := t.w.sides[0], t.w.sides[1]
	addr, port := t.n.addr[1].String(), strconv.Itoa(iperfPort)
	if server, err = b.start("iperf3", "-s", "-1", "-B", addr, "-p", port); err != nil {
		return nil, nil, err
	}
	err = await(ctx, 5*time.Second, func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", b.pid()))
		if err == nil && !listens(string(text), iperfPort) {
			err = errors.New("the server does not listen yet")
		}
		return err
	})
	if err == nil {
		client, err = a.start(append([]string{"iperf3", "-J", "-c", addr, "-p", port, "-t", strconv.Itoa(seconds)}, args...)...)
	}
	if err != nil {
		server.stop()
		return nil, nil, errors.Join(err, server.complain("wrote"))
	}
	return server, client, nil
}

// waitIperf waits for the client's report; its exit says nothing that is not in there.
func waitIperf(ctx context.Context, client *process, seconds int) (traffic, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds+30)*time.Second)
	defer cancel()
	select {
	case <-client.ended:
		return parseIperf(client.stdout.String())
	case <-ctx.Done():
		client.stop()
		return traffic{}, client.complain("did not end")
	}
}

// listens says whether something listens on a port by what is in /proc/net/tcp.
func listens(text string, port int) bool {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == "0A" {
			return true
		}
	}
	return false
}
