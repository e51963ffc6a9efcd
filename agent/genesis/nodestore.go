package genesis

import (
	"encoding/json"
	"fmt"

	"github.com/kairos-io/kairos/agent/store"
)

// NewStore keeps the votes in the node's state file. The phase becomes Promised
// in the same write as the first vote. The store must have been loaded.
func NewStore(s *store.Store) Store { return nodeStore{s} }

type nodeStore struct{ s *store.Store }

// Load implements Store.
func (n nodeStore) Load() (State, error) {
	raw := n.s.State().Genesis
	if len(raw) == 0 {
		return State{}, nil
	}
	var st State
	if err := json.Unmarshal(raw, &st); err != nil {
		return State{}, fmt.Errorf("votes in %s: %w: %w", n.s.Path(), store.ErrCorrupt, err)
	}
	return st, nil
}

// Save implements Store.
func (n nodeStore) Save(st State) error {
	raw, err := st.Encode()
	if err != nil {
		return fmt.Errorf("encode votes: %w", err)
	}
	return n.s.Update(func(s *store.State) error {
		s.Genesis = raw
		if s.Phase == store.Idle && len(st.Votes) > 0 {
			s.Phase = store.Promised
		}
		return nil
	})
}
