package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

func sample() State {
	return State{NetworkID: "home", Phase: Running, Role: Server, ClusterUID: strings.Repeat("a", 32), Epoch: 2,
		Servers: []identity.ID{{1}}, PodCIDR: netip.MustParsePrefix("10.42.1.0/24"), Genesis: json.RawMessage(`{"epoch":2}`)}
}

func open(t *testing.T, dir string, fsys FS) *Store {
	t.Helper()
	s, err := OpenFS(dir, fsys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func compact(t *testing.T, s State) State {
	t.Helper()
	if len(s.Genesis) == 0 {
		s.Genesis = nil
		return s
	}
	var b bytes.Buffer
	if err := json.Compact(&b, s.Genesis); err != nil {
		t.Fatal(err)
	}
	s.Genesis = b.Bytes()
	return s
}

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	s := open(t, dir, OS{})
	if st, found, err := s.Load(); err != nil || found || !reflect.DeepEqual(st, State{}) {
		t.Fatalf("empty directory: %+v, %v, %v", st, found, err)
	}
	want := sample()
	if err := s.Save(want); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, OS{})
	got, found, err := again.Load()
	if err != nil || !found || !reflect.DeepEqual(compact(t, got), want) {
		t.Fatalf("got %+v, %v, %v\nwant %+v", got, found, err, want)
	}
	for name, mode := range map[string]fs.FileMode{dir: 0o700, again.Path(): 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v; want %o", name, info.Mode(), err, mode)
		}
	}
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, OS{})
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second writer: %v", err)
	}
}

func TestUnusableIsNotEmpty(t *testing.T) {
	good, err := encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	headed := func(body string) string { return string(header([]byte(body))) + body }
	tests := []struct {
		name, content string
		want          error
	}{
		{"empty file", "", ErrCorrupt},
		{"zeros", strings.Repeat("\x00", 512), ErrCorrupt},
		{"cut in the header", string(good[:20]), ErrCorrupt},
		{"cut in the body", string(good[:len(good)-3]), ErrCorrupt},
		{"something appended", string(good) + "x", ErrCorrupt},
		{"a changed digit", strings.Replace(string(good), `"epoch": 2`, `"epoch": 3`, 1), ErrCorrupt},
		{"another program's JSON", `{"phase":"running"}`, ErrCorrupt},
		{"good sum, not JSON", headed("]"), ErrCorrupt},
		{"good sum, unknown phase", headed(`{"phase":"flying"}`), ErrCorrupt},
		{"version 0", strings.Replace(string(good), "kairos-state 1", "kairos-state 0", 1), ErrCorrupt},
		{"no number", strings.Replace(string(good), "kairos-state 1", "kairos-state x", 1), ErrCorrupt},
		{"for a newer reader", "kairos-state 2 sha3-of-something\n{}", ErrNewer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, OS{})
			if err := os.WriteFile(s.Path(), []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if st, found, err := s.Load(); !errors.Is(err, tt.want) || found || !reflect.DeepEqual(st, State{}) {
				t.Errorf("load: %+v, %v, %v; want %v", st, found, err, tt.want)
			}
			if err := s.Save(sample()); !errors.Is(err, ErrNotLoaded) {
				t.Errorf("save over it: %v", err)
			}
			if left, err := os.ReadFile(s.Path()); err != nil || string(left) != tt.content {
				t.Errorf("file changed: %q, %v", left, err)
			}
		})
	}
	t.Run("unreadable", func(t *testing.T) {
		s := open(t, t.TempDir(), OS{})
		if err := os.Mkdir(s.Path(), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Load(); !errors.Is(err, ErrUnreadable) || errors.Is(err, ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not loaded at all", func(t *testing.T) {
		if err := open(t, t.TempDir(), OS{}).Save(sample()); !errors.Is(err, ErrNotLoaded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSaveRole(t *testing.T) {
	votes := json.RawMessage(`{"epoch":1}`)
	decided := State{NetworkID: "home", Phase: Decided, Role: Server, ClusterUID: "a", Epoch: 1, Genesis: votes}
	tests := []struct {
		name     string
		old, new State
		want     error
	}{
		{"forward", decided, State{Phase: Starting, ClusterUID: "a", Epoch: 1}, nil},
		{"the same", decided, decided, nil},
		{"backward", decided, State{Phase: Promised, ClusterUID: "a", Epoch: 1}, ErrBackward},
		{"another cluster", decided, State{Phase: Promised}, nil},
		{"the next epoch", decided, State{Phase: Decided, ClusterUID: "b", Epoch: 2}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir(), OS{})
			if _, _, err := s.Load(); err != nil {
				t.Fatal(err)
			}
			if err := s.Save(tt.old); err != nil {
				t.Fatal(err)
			}
			if err := s.SaveRole(tt.new); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			got := s.State()
			if string(got.Genesis) != string(votes) {
				t.Errorf("votes became %s", got.Genesis)
			}
			if want := tt.new.Phase; tt.want == nil && got.Phase != want || tt.want != nil && got.Phase != tt.old.Phase {
				t.Errorf("phase %q", got.Phase)
			}
		})
	}
}

func TestNothingIsSavedAfterClose(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, OS{})
	if _, _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Save(State{Epoch: 1}), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(State{Epoch: 2}); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("saved without the lock: %v", err)
	}
}

// A node that leaves its cluster is a member of none, and has still voted.
func TestForget(t *testing.T) {
	for name, votes := range map[string]json.RawMessage{"voted": json.RawMessage(`{"epoch":1}`), "never voted": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, OS{})
			if err := s.Forget(); !errors.Is(err, ErrNotLoaded) {
				t.Errorf("before it was loaded: %v", err)
			}
			if _, _, err := s.Load(); err != nil {
				t.Fatal(err)
			}
			old := State{NetworkID: "home", Phase: Running, Role: Worker, ClusterUID: "a", Epoch: 1, Genesis: votes}
			if err := errors.Join(s.Save(old), s.Forget(), s.Close()); err != nil {
				t.Fatal(err)
			}
			got, found, err := open(t, dir, OS{}).Load()
			want := State{Genesis: got.Genesis}
			if len(votes) > 0 {
				want.Phase = Promised
			}
			if err != nil || !found || !reflect.DeepEqual(got, want) || len(got.Genesis) == 0 != (len(votes) == 0) {
				t.Errorf("got %+v, %v, %v", got, found, err)
			}
		})
	}
}

func TestUpdateErrorWritesNothing(t *testing.T) {
	s := open(t, t.TempDir(), OS{})
	if _, _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := s.Update(func(st *State) error { st.Epoch = 9; return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if s.State().Epoch != 0 {
		t.Error("state changed in memory")
	}
	if _, err := os.Stat(s.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file written: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("kairos-state 1 00\n{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		st, err := decode(raw)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Fatalf("unclassified: %v", err)
			}
			return
		}
		if _, err := encode(st); err != nil {
			t.Fatalf("cannot be written back: %v", err)
		}
	})
}

// A machine that goes back to the version before finds a state with fields that
// this version does not know (fault A18). They are there after whatever it does,
// when the newer version comes back.
func TestKeepsWhatALaterVersionAdds(t *testing.T) {
	const later = `{"phase":"decided","cluster_uid":"a","epoch":1,"role":"worker","later":{"deep":[1,{"x":2}]},"genesis":{"later":"votes"}}`
	for name, change := range map[string]func(s *Store) error{
		"update": func(s *Store) error { return s.Update(func(st *State) error { st.Epoch = 2; return nil }) },
		"save": func(s *Store) error {
			return s.Save(State{Phase: Starting, ClusterUID: "a", Epoch: 1, Genesis: s.State().Genesis})
		},
		"save role": func(s *Store) error { return s.SaveRole(State{Phase: Decided, ClusterUID: "b", Epoch: 7}) },
		"forget":    func(s *Store) error { return s.Forget() },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, OS{})
			if err := os.WriteFile(s.Path(), append(header([]byte(later)), later...), 0o600); err != nil {
				t.Fatal(err)
			}
			st, found, err := s.Load()
			if err != nil || !found || st.Phase != Decided {
				t.Fatalf("a state of a later version is not usable: %+v, %v", st, err)
			}
			if err := errors.Join(change(s), s.Close()); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(s.Path())
			if err != nil {
				t.Fatal(err)
			}
			_, body, _ := bytes.Cut(raw, []byte{'\n'})
			var got struct {
				Later   json.RawMessage
				Genesis json.RawMessage
			}
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatal(err)
			}
			for want, have := range map[string]json.RawMessage{`{"deep":[1,{"x":2}]}`: got.Later, `{"later":"votes"}`: got.Genesis} {
				var b bytes.Buffer
				if err := json.Compact(&b, have); err != nil || b.String() != want {
					t.Errorf("of %s is left %q, %v", want, b.String(), err)
				}
			}
		})
	}
}

// Whoever only looks needs no lock, and is told what cannot be read.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	if st, found, err := Read(dir); err != nil || found || st.Role != NoRole {
		t.Errorf("nothing there: %+v, %t, %v", st, found, err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(State{Phase: Running, Role: Server, NetworkID: "home"}); err != nil {
		t.Fatal(err)
	}
	if st, found, err := Read(dir); err != nil || !found || st.Role != Server || st.NetworkID != "home" { // while s has the lock
		t.Errorf("read %+v, %t, %v", st, found, err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
}
