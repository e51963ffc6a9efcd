// Package role is the whole policy of what a node does: Plan looks at the facts
// and says what to do next. It is pure and level-triggered: it remembers
// nothing, and the same facts give the same plan.
//
// The order of the plan matters. A Save stands before the side effect that it
// announces, and the caller executes the actions in order, stops at the first
// that fails, and comes back with fresh facts.
//
// What a plan needs to know of earlier turns are facts as well, made by values that
// get the time as an argument: Watch (a k3s that does not answer) and Backoff (one
// that does not stay up).
//
// Nobody assigns roles. A node that the decision does not name is a worker, so
// there is no message that could be lost. Wherever going on could make a second
// cluster or destroy the first, the plan is to ask a person.
package role
