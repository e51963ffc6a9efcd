package dial

import (
	"container/heap"
	"time"
)

// queue orders targets by target.at. A target is in one queue at most.
type queue struct{ items []*target }

// Len implements heap.Interface.
func (q *queue) Len() int { return len(q.items) }

// Less implements heap.Interface. What is due at the same time goes in the
// order of age, so that a run can be repeated.
func (q *queue) Less(i, j int) bool {
	a, b := q.items[i], q.items[j]
	if a.at != b.at {
		return a.at < b.at
	}
	return a.number < b.number
}

// Swap implements heap.Interface.
func (q *queue) Swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	q.items[i].index, q.items[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	t := x.(*target)
	t.index = len(q.items)
	q.items = append(q.items, t)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(q.items) - 1
	t := q.items[last]
	q.items[last] = nil
	q.items = q.items[:last]
	return t
}

// put moves a target into the queue.
func (q *queue) put(t *target, at time.Duration) {
	t.leave()
	t.at, t.in = at, q
	heap.Push(q, t)
}

// first returns the target that is due first, or nil.
func (q *queue) first() *target {
	if len(q.items) == 0 {
		return nil
	}
	return q.items[0]
}

// leave takes a target out of its queue.
func (t *target) leave() {
	if t.in != nil {
		heap.Remove(t.in, t.index)
		t.in = nil
	}
}
