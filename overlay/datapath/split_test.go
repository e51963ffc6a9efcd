package datapath

import (
	"bytes"
	"testing"
)

// Parts make the packet in whatever order they come, and nothing else does.
func TestJoin(t *testing.T) {
	head, tail := []byte{0, 0, 0, 7, 1, 2, 3}, []byte{0, 0, 0, 7, 4, 5}
	want := []byte{1, 2, 3, 4, 5}
	join := func(w *pieces, payload []byte, flags byte, want []byte, ok bool) {
		t.Helper()
		got, good := w.join(payload, flags)
		if !bytes.Equal(got, want) || good != ok {
			t.Errorf("%v %v, want %v %v", got, good, want, ok)
		}
	}
	var w pieces
	for range 2 {
		join(&w, head, flagHead, nil, true)
		join(&w, tail, flagTail|flagPartial, want, true)
		join(&w, tail, flagTail, nil, true)
		join(&w, head, flagHead, want, true)
	}
	join(&w, head, flagHead, nil, true)
	join(&w, head, flagHead, nil, true) // twice the same
	join(&w, []byte{0, 0, 0, 7 + waitingParts, 9}, flagTail, nil, true)
	join(&w, tail, flagTail, nil, true) // the other part was given up
	join(&w, head, flagHead|flagTail, nil, false)
	join(&w, head[:splitHeader], flagHead, nil, false)
	join(&w, make([]byte, longestSplit+1), flagHead, nil, false)
}
