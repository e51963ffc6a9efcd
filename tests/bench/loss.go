package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/kairos-io/kairos/tests/lab/wan"
)

// lossRates are those of the underlay's packets, in percent, each way.
var lossRates = []float64{0.1, 1}

const (
	lossDelay   = 10 * time.Millisecond // each way
	lossSpeed   = 400_000_000           // bit/s, each way: that of a line, not of the processors
	lossFlows   = 8                     // TCP connections that share the lossy way
	lossSeconds = 8                     // the least; the flows have to find their speed first
)

// lossy makes an underlay that is long and loses this much, in percent. The seed
// decides which packets are lost, so that contenders of one round have the same luck.
func lossy(percent float64, seed uint64) underlay {
	return func(ctx context.Context, w *world) error {
		path := wan.Path{Delay: lossDelay, Loss: percent / 100, Rate: lossSpeed}
		link, err := wan.Start(ctx, wan.Config{A: lossyEnd(w.sides[0]), B: lossyEnd(w.sides[1]), AtoB: path, BtoA: path, Seed: seed})
		if err != nil {
			return err
		}
		w.cleanups = append(w.cleanups, link.Close)
		return nil
	}
}

func lossyEnd(s *side) wan.End {
	return wan.End{Netns: wan.NetnsOf(s.pid()), Name: nic, Addrs: []netip.Prefix{netip.PrefixFrom(s.addr, underlayBits)}}
}

func lossColumn(percent float64) string { return "loss" + strconv.FormatFloat(percent, 'f', -1, 64) }

// measureLoss measures one contender on a lossy underlay.
func (b *bench) measureLoss(ctx context.Context, c contender, join underlay) (bitsPerSecond float64, err error) {
	err = b.with(ctx, c, join, func(t *trial) error {
		values, err := t.figure(ctx, func(ctx context.Context, t *trial) error {
			got, err := t.iperf(ctx, max(t.seconds, lossSeconds), "-C", "cubic", "-P", strconv.Itoa(lossFlows))
			if err != nil {
				return fmt.Errorf("%d flows: %w", lossFlows, err)
			}
			t.got[figureLoss] = got.bitsPerSecond()
			return nil
		})
		bitsPerSecond = values[figureLoss]
		return err
	})
	return bitsPerSecond, err
}
