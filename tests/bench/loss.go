package main

import (
	"context"
	"fmt"
	"strconv"
)

// lossRates are those of the underlay's packets, in percent, each way.
var lossRates = []float64{0.1, 1}

// lossFlows is how many TCP connections share the lossy way.
const lossFlows = 8

// lossy makes an underlay with a round trip of 20 ms that loses this much, in percent.
// While it is nil there is no such thing, and the figure is not known.
var lossy func(percent float64) underlay

func lossColumn(percent float64) string { return "loss" + strconv.FormatFloat(percent, 'f', -1, 64) }

// tryLoss measures one contender on a lossy underlay.
func (b *bench) tryLoss(ctx context.Context, c contender, round int, percent float64) error {
	if c.name == nameCopier {
		return nil // it has no underlay
	}
	return b.with(ctx, c, lossy(percent), func(t *trial) error {
		got, err := t.iperf(ctx, t.seconds, "-C", "cubic", "-P", strconv.Itoa(lossFlows))
		if err != nil {
			return fmt.Errorf("%d flows: %w", lossFlows, err)
		}
		b.putter(c, round)(lossColumn(percent), got.bitsPerSecond()/1e6)
		return nil
	})
}
