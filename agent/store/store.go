package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Format of the file: one line "kairos-state <min_reader> <hex sha256 of the rest>",
// then JSON. A program reads what asks for no higher reader than it is, and keeps
// what it does not know. So a version that only adds fields changes no number, and
// the version before it, to which the machine may go back, goes on with the file;
// one whose change must not be overlooked (another phase, a field that changes
// what another means) raises both numbers, and the version before it refuses.
const (
	magic     = "kairos-state"
	reader    = 1 // what this program is
	minReader = 1 // what it takes to read what this program writes
	fileName  = "state.json"
	lockName  = "lock"
)

// Store is the state of one node on disk. It is safe for concurrent use; a
// lock on the directory keeps other processes out until Close.
type Store struct {
	fsys FS
	path string
	lock *os.File

	mu     sync.Mutex // protects what follows
	loaded bool
	state  State
}

// Open makes dir (mode 0700) where needed and takes its lock. ErrLocked means
// that another process has it. The state is not read yet: see Load.
func Open(dir string) (*Store, error) { return OpenFS(dir, OS{}) }

// OpenFS is Open with another disk for the state file. The lock and the
// directory are always the real ones.
func OpenFS(dir string, fsys FS) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), lock.Close())
	}
	return &Store{fsys: fsys, path: filepath.Join(dir, fileName), lock: lock}, nil
}

// Path returns the state file's name, for messages.
func (s *Store) Path() string { return s.path }

// Load reads the file. found is false, with a zero State, only when the file
// is absent. Any error (ErrUnreadable, ErrCorrupt, ErrNewer) keeps Save closed.
func (s *Store) Load() (state State, found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded, s.state = false, State{}
	if state, found, err = read(s.fsys.ReadFile, s.path); err != nil {
		return State{}, false, err
	}
	s.loaded, s.state = true, state
	return state.Clone(), found, nil
}

// Read is Load for whoever only looks, and needs neither the lock nor the
// agent: a file is replaced as a whole, so what is there is one state.
func Read(dir string) (state State, found bool, err error) {
	return read(os.ReadFile, filepath.Join(dir, fileName))
}

func read(readFile func(string) ([]byte, error), path string) (state State, found bool, err error) {
	raw, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, false, nil
	}
	if err != nil {
		return State{}, false, fmt.Errorf("read %s: %w: %w", path, ErrUnreadable, err)
	}
	if state, err = decode(raw); err != nil {
		return State{}, false, fmt.Errorf("read %s: %w", path, err)
	}
	return state, true, nil
}

// State returns the state last loaded or saved.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Clone()
}

// Update changes the state and makes it durable before it returns nil. An
// error of change is returned as it is, with nothing written. After an error of
// the disk the state in memory is the old one, while the file may be either.
func (s *Store) Update(change func(*State) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		return fmt.Errorf("save %s: %w", s.path, ErrNotLoaded)
	}
	next := s.state.Clone()
	if err := change(&next); err != nil {
		return err
	}
	raw, err := encode(next)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := WriteFile(s.fsys, s.path, raw); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	s.state = next.Clone()
	return nil
}

// Save replaces all of the state that this version knows. Where another goroutine
// may write other fields, use Update.
func (s *Store) Save(next State) error {
	return s.Update(func(st *State) error {
		unknown := st.unknown
		*st = next.Clone()
		st.unknown = unknown
		return nil
	})
}

// SaveRole replaces everything but the votes (Genesis), which another goroutine
// writes, and what only a later version knows. Within an epoch of one cluster the phase must not go backward: such a
// state was planned from facts that are out of date, and is ErrBackward.
func (s *Store) SaveRole(next State) error {
	return s.Update(func(st *State) error {
		same := st.ClusterUID == next.ClusterUID && st.Epoch == next.Epoch
		if same && !next.Phase.AtLeast(st.Phase) {
			return fmt.Errorf("save phase %q over %q: %w", next.Phase, st.Phase, ErrBackward)
		}
		votes, unknown := st.Genesis, st.unknown
		*st = next.Clone()
		st.Genesis, st.unknown = votes, unknown
		return nil
	})
}

// Votes decodes the votes into v, which stays as it is where there are none.
// Votes that cannot be read are ErrCorrupt.
func (s *Store) Votes(v any) error {
	raw := s.State().Genesis
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("votes in %s: %w: %w", s.path, ErrCorrupt, err)
	}
	return nil
}

// SaveVotes replaces the votes. cast says that there is one: the phase becomes
// Promised in the same write.
func (s *Store) SaveVotes(raw json.RawMessage, cast bool) error {
	return s.Update(func(st *State) error {
		st.Genesis = raw
		if st.Phase == Idle && cast {
			st.Phase = Promised
		}
		return nil
	})
}

// Forget makes the node one that belongs to no cluster. Its votes stay: under the
// same key it must not vote twice.
func (s *Store) Forget() error {
	return s.Update(func(st *State) error {
		votes := st.Genesis
		*st = State{Genesis: votes, unknown: st.unknown}
		if len(votes) > 0 {
			st.Phase = Promised
		}
		return nil
	})
}

// Close releases the lock. It waits for a save that is under way, and lets none
// happen after it: the state may be another process's by then.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = false
	return s.lock.Close()
}

func encode(st State) ([]byte, error) {
	if !st.Phase.Valid() {
		return nil, fmt.Errorf("phase %q is unknown", st.Phase)
	}
	body, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return nil, err
	}
	body = append(body, '\n')
	return append(header(body), body...), nil
}

func header(body []byte) []byte {
	sum := sha256.Sum256(body)
	return fmt.Appendf(nil, "%s %d %s\n", magic, minReader, hex.EncodeToString(sum[:]))
}

func decode(raw []byte) (State, error) {
	head, body, ok := bytes.Cut(raw, []byte{'\n'})
	fields := strings.Split(string(head), " ")
	if !ok || len(fields) != 3 || fields[0] != magic {
		return State{}, fmt.Errorf("no header: %w", ErrCorrupt)
	}
	v, err := strconv.ParseUint(fields[1], 10, 31)
	if err != nil {
		return State{}, fmt.Errorf("min_reader %q: %w", fields[1], ErrCorrupt)
	}
	// Before the checksum: a newer format may sum differently.
	if v > reader {
		return State{}, fmt.Errorf("it asks for reader %d, this version is reader %d: %w", v, reader, ErrNewer)
	}
	sum := sha256.Sum256(body)
	if v < 1 || fields[2] != hex.EncodeToString(sum[:]) {
		return State{}, fmt.Errorf("checksum differs: %w", ErrCorrupt)
	}
	var st State
	if err := json.Unmarshal(body, &st); err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !st.Phase.Valid() {
		return State{}, fmt.Errorf("phase %q is unknown: %w", st.Phase, ErrCorrupt)
	}
	return st, nil
}
