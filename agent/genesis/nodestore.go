package genesis

import (
	"encoding/json"
	"fmt"
)

// StateFile is the part of a node's state file that is for votes; *store.Store
// implements it, which must have been loaded.
type StateFile interface {
	// Votes decodes them into v, which stays as it is where there are none.
	Votes(v any) error
	// SaveVotes keeps them; cast says that there is one, in the same write.
	SaveVotes(raw json.RawMessage, cast bool) error
}

// NewStore keeps the votes in the node's state file. The phase becomes Promised
// in the same write as the first vote.
func NewStore(f StateFile) Store { return nodeStore{f} }

type nodeStore struct{ file StateFile }

// Load implements Store.
func (n nodeStore) Load() (st State, err error) {
	if err := n.file.Votes(&st); err != nil {
		return State{}, err
	}
	return st, nil
}

// Save implements Store.
func (n nodeStore) Save(st State) error {
	raw, err := st.Encode()
	if err != nil {
		return fmt.Errorf("encode votes: %w", err)
	}
	return n.file.SaveVotes(raw, len(st.Votes) > 0)
}
