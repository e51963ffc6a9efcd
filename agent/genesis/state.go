package genesis

// State is what a node must never forget. The zero State is that of a node
// that never voted. It is a value: functions of this package return a new one.
type State struct {
	// Epoch is the epoch in which the node votes; 0 means 1. It votes in no lower one.
	Epoch uint64 `json:"epoch,omitempty"`
}
