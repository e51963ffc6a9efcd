package main

import (
	"context"
	"strconv"
)

// lossRates are those of the underlay's packets, in percent, each way.
var lossRates = []float64{0.1, 1}

const (
	lossFlows   = 8 // TCP connections that share the lossy way
	lossSeconds = 6 // the least; the flows have to find their speed first
)

// lossy makes an underlay with a round trip of 20 ms that loses this much, in percent.
// While it is nil there is no such thing, and the figure is not known.
var lossy func(percent float64) underlay

func lossColumn(percent float64) string { return "loss" + strconv.FormatFloat(percent, 'f', -1, 64) }

// measureLoss measures one contender on a lossy underlay.
func (b *bench) measureLoss(ctx context.Context, c contender, percent float64) (map[string]float64, error) {
	var values map[string]float64
	err := b.with(ctx, c, lossy(percent), func(t *trial) (err error) {
		values, err = t.figure(ctx, func(ctx context.Context, t *trial) error {
			got, err := t.iperf(ctx, max(t.seconds, lossSeconds), "-C", "cubic", "-P", strconv.Itoa(lossFlows))
			if err == nil {
				t.got[lossColumn(percent)] = got.bitsPerSecond() / 1e6
			}
			return err
		})
		return err
	})
	return values, err
}
