package api

import "math"

// Wanted is the role that a person gave a node.
type Wanted string

// The wanted roles.
const (
	WantedAny    Wanted = "" // decided automatically
	WantedMaster Wanted = "master"
	WantedWorker Wanted = "worker"
)

// EveryEpoch is above all epochs that there can be: the one to abstain up to for a
// node that cannot know what it forgot.
const EveryEpoch uint64 = math.MaxUint64
