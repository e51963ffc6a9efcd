package overlaytest

import (
	"fmt"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/gossip"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow makes anti-entropy too rare to help: what arrives, arrives as a delta.
func slow(_ int, c *gossip.Config) { c.Interval = time.Hour }

func TestConverge(t *testing.T) {
	for _, n := range []int{2, 8} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			begin := time.Now()
			net := New(t, n, Options{Gossip: slow})
			net.WaitConnected()
			net.WaitConverged()
			t.Logf("RESULT %d nodes alike after %s", n, time.Since(begin))
		})
	}
}
