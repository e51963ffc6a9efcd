package agent

import (
	"testing"

	"github.com/kairos-io/kairos/agent/store"
)

// Nobody is let in from the overlay without a right, which a stranger never has.
func TestEveryEndpointTakesARight(t *testing.T) {
	b := newBench(t, store.Server, nil)
	doors := map[door]int{}
	for _, e := range b.endpoints() {
		doors[e.at]++
		if (e.at == onOverlay) != (e.right != 0) {
			t.Errorf("%s: the right is %v", e.pattern, e.right)
		}
	}
	if n := len(b.peerEndpoints()); n == 0 || n != doors[onOverlay] || doors[onSocket] == 0 {
		t.Errorf("%d for members of %v", n, doors)
	}
}
