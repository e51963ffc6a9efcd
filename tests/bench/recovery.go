package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"
)

// How long packets are lost when the network below changes. Each is measured in a
// world of its own, since it is another one afterwards.
const (
	figureRoam = "roam"
	figureDead = "deadpath"
)

const (
	recoveryEvery = 10 * time.Millisecond // between pings
	recoveryLead  = time.Second           // of pings before the change
	recoveryMost  = 45 * time.Second      // after it
	recoverySpare = 100                   // answers that say that it is over
)

// recovery is one change of the network below.
type recovery struct {
	figure string
	join   underlay
	change func(context.Context, *world) error
}

var recoveries = []recovery{
	{figureRoam, veth, roam},
	{figureDead, twoCables, cutCable},
}

// roamed is where the first side is after it has moved.
var roamed = netip.MustParsePrefix("10.99.0.77/24")

// roam takes the address of the first side, and gives it another one.
func roam(ctx context.Context, w *world) error {
	a := w.sides[0]
	if err := a.exec(ctx, "ip", "addr", "del", netip.PrefixFrom(a.addr, underlayBits).String(), "dev", nic); err != nil {
		return err
	}
	return a.exec(ctx, "ip", "addr", "add", roamed.String(), "dev", nic)
}

// secondNIC and secondAddr are the other cable of twoCables.
const secondNIC = "veth1"

var secondAddr = [2]netip.Prefix{netip.MustParsePrefix("10.98.0.1/24"), netip.MustParsePrefix("10.98.0.2/24")}

// twoCables joins the sides twice.
func twoCables(ctx context.Context, w *world) error {
	if err := veth(ctx, w); err != nil {
		return err
	}
	a, b := w.sides[0], w.sides[1]
	if err := a.exec(ctx, "ip", "link", "add", secondNIC, "type", "veth", "peer", "name", secondNIC, "netns", strconv.Itoa(b.pid())); err != nil {
		return err
	}
	for i, s := range w.sides {
		if err := s.configure(ctx, secondNIC, secondAddr[i]); err != nil {
			return err
		}
	}
	return nil
}

// silence is a cable that looks well and carries nothing.
func silence(dev string) string {
	return `table inet silence {
	chain in { type filter hook input priority 0; iifname "` + dev + `" drop; }
}
`
}

// cutCable silences the cable that packets take: the one whose counters move.
func cutCable(ctx context.Context, w *world) error {
	dev, err := busiest(ctx, w.sides[0])
	if err != nil {
		return err
	}
	for _, s := range w.sides {
		rules, err := s.write("silence.nft", silence(dev))
		if err != nil {
			return err
		}
		if err := s.exec(ctx, "nft", "-f", rules); err != nil {
			return err
		}
	}
	return nil
}

func busiest(ctx context.Context, s *side) (string, error) {
	var sent [2]int
	for i, dev := range []string{nic, secondNIC} {
		before, err := txPackets(s, dev)
		if err != nil {
			return "", err
		}
		if err := pause(ctx, 20*recoveryEvery); err != nil {
			return "", err
		}
		after, err := txPackets(s, dev)
		if err != nil {
			return "", err
		}
		sent[i] = after - before
	}
	if sent[1] > sent[0] {
		return secondNIC, nil
	}
	return nic, nil
}

// txPackets is how many packets a card of the side has sent, by /proc/net/dev.
func txPackets(s *side, dev string) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", s.pid()))
	if err != nil {
		return 0, err
	}
	return parseTxPackets(string(text), dev)
}

// measureRecovery is the longest time, in milliseconds, in which no ping was answered.
func (b *bench) measureRecovery(ctx context.Context, c contender, r recovery) (ms float64, err error) {
	err = b.with(ctx, c, r.join, func(t *trial) error {
		a := t.w.sides[0]
		// Without a deadline: with one, ping ends when somebody says that there is no way.
		p, err := a.start("ping", "-n", "-i", strconv.FormatFloat(recoveryEvery.Seconds(), 'f', -1, 64), t.n.addr[1].String())
		if err != nil {
			return err
		}
		defer p.stop()
		if err := pause(ctx, recoveryLead); err != nil {
			return err
		}
		if err := r.change(ctx, t.w); err != nil {
			return err
		}
		changed := len(pingSequence(p.stdout.String()))
		var gap int
		err = await(ctx, recoveryMost, func() error {
			got := pingSequence(p.stdout.String())
			if len(got) < changed+recoverySpare {
				return fmt.Errorf("%d pings were answered after the change", len(got)-changed)
			}
			gap = longestGap(got)
			return nil
		})
		ms = float64(gap) * float64(recoveryEvery.Milliseconds())
		if err != nil {
			return t.n.explain(err)
		}
		return nil
	})
	return ms, err
}

// longestGap is the most numbers in a row that are missing.
func longestGap(numbers []int) (most int) {
	numbers = slices.Sorted(slices.Values(numbers))
	for i := 1; i < len(numbers); i++ {
		most = max(most, numbers[i]-numbers[i-1]-1)
	}
	return most
}
