package mesh

import (
	"math"
	"testing"
)

// The kernel's counters begin again at zero, the sum of them does not.
func TestTally(t *testing.T) {
	var got tally
	for _, step := range []struct {
		counter int
		value   uint32
		want    uint64
	}{
		{0, 0, 0},
		{0, 7, 7},
		{0, 7, 7},
		{2, 5, 12},
		{0, 6, 12}, // told late
		{0, 8, 13},
		{0, math.MaxInt32, math.MaxInt32 + 5},
		{0, math.MaxUint32 - 1, math.MaxUint32 + 4},
		{0, 2, math.MaxUint32 + 8},
	} {
		if got.add(step.counter, step.value); got.sum != step.want {
			t.Errorf("counter %d says %d: sum %d, want %d", step.counter, step.value, got.sum, step.want)
		}
	}
}
