package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// The crash test records what the write protocol does to the disk and then
// builds every disk that a power cut may leave. What a disk may do:
//
//   - content that was not synced may be there, in part, as zeros, or not at all
//   - a directory's changes that were not synced may have happened up to any point
//
// Every such disk must load as the old state or the new one, and as the new
// one once Save has returned.

// op is one recorded operation.
type op struct {
	kind     string // create, write, sync, rename, remove, syncdir
	name, to string
	data     []byte
}

// logFS is a disk in memory that records, and fails on demand.
type logFS struct {
	files  map[string][]byte
	ops    []op
	failAt int // number of the operation that fails; 0: none
	done   int
}

var errDisk = errors.New("input/output error")

func (l *logFS) record(o op) error {
	l.done++
	if l.done == l.failAt {
		return errDisk
	}
	l.ops = append(l.ops, o)
	return nil
}

func (l *logFS) ReadFile(name string) ([]byte, error) {
	data, ok := l.files[name]
	if !ok {
		return nil, fmt.Errorf("read %s: %w", name, fs.ErrNotExist)
	}
	return data, nil
}

func (l *logFS) Create(name string) (File, error) {
	if err := l.record(op{kind: "create", name: name}); err != nil {
		return nil, err
	}
	l.files[name] = nil
	return &logFile{l, name}, nil
}

func (l *logFS) Rename(from, to string) error {
	if err := l.record(op{kind: "rename", name: from, to: to}); err != nil {
		return err
	}
	l.files[to] = l.files[from]
	delete(l.files, from)
	return nil
}

func (l *logFS) Remove(name string) error {
	if err := l.record(op{kind: "remove", name: name}); err != nil {
		return err
	}
	delete(l.files, name)
	return nil
}

func (l *logFS) SyncDir(dir string) error { return l.record(op{kind: "syncdir", name: dir}) }

type logFile struct {
	l    *logFS
	name string
}

func (f *logFile) Write(p []byte) (int, error) {
	if err := f.l.record(op{kind: "write", name: f.name, data: append([]byte(nil), p...)}); err != nil {
		return 0, err
	}
	f.l.files[f.name] = append(f.l.files[f.name], p...)
	return len(p), nil
}
func (f *logFile) Sync() error  { return f.l.record(op{kind: "sync", name: f.name}) }
func (f *logFile) Close() error { return nil }

// inode is a file's content as the disk may have it.
type inode struct{ durable, volatile []byte }

// variants returns what may be read from the file after a power cut.
func (n *inode) variants() [][]byte {
	if string(n.durable) == string(n.volatile) {
		return [][]byte{n.durable}
	}
	half := n.volatile[:len(n.volatile)/2]
	return [][]byte{n.durable, n.volatile, half, append(append([]byte(nil), half...), make([]byte, len(n.volatile)-len(half))...), make([]byte, len(n.volatile))}
}

// crashes returns every disk that a power cut after ops may leave, starting
// from a durable disk.
func crashes(start map[string][]byte, ops []op) []map[string][]byte {
	dir := map[string]*inode{}
	for name, data := range start {
		dir[name] = &inode{data, data}
	}
	// Directory versions since the last sync of the directory.
	versions := []map[string]*inode{clone(dir)}
	for _, o := range ops {
		switch o.kind {
		case "create":
			dir[o.name] = &inode{}
		case "write":
			dir[o.name].volatile = append(append([]byte(nil), dir[o.name].volatile...), o.data...)
		case "sync":
			dir[o.name].durable = dir[o.name].volatile
		case "rename":
			dir[o.to] = dir[o.name]
			delete(dir, o.name)
		case "remove":
			delete(dir, o.name)
		case "syncdir":
			versions = nil
		}
		versions = append(versions, clone(dir))
	}
	var out []map[string][]byte
	for _, v := range versions {
		disks := []map[string][]byte{{}}
		for name, n := range v {
			var next []map[string][]byte
			for _, d := range disks {
				for _, content := range n.variants() {
					c := map[string][]byte{name: content}
					for k, x := range d {
						c[k] = x
					}
					next = append(next, c)
				}
			}
			disks = next
		}
		out = append(out, disks...)
	}
	return out
}

func clone(m map[string]*inode) map[string]*inode {
	out := map[string]*inode{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// loadFrom reads a disk as the agent does after the reboot.
func loadFrom(t *testing.T, dir string, disk map[string][]byte) (State, bool, error) {
	t.Helper()
	s := open(t, dir, &logFS{files: disk})
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	return s.Load()
}

func TestEveryCrashLeavesOldOrNew(t *testing.T) {
	for _, tt := range []struct {
		name     string
		previous bool
		leftover bool // of an earlier crash
	}{{"first save", false, false}, {"over an older state", true, false}, {"with a leftover", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, fileName)
			start := map[string][]byte{}
			if tt.previous {
				raw, err := encode(State{Epoch: 1})
				if err != nil {
					t.Fatal(err)
				}
				start[path] = raw
			}
			if tt.leftover {
				start[path+".tmp"] = []byte("half of someth")
			}
			disk := &logFS{files: map[string][]byte{}}
			for k, v := range start {
				disk.files[k] = v
			}
			s := open(t, dir, disk)
			if _, _, err := s.Load(); err != nil {
				t.Fatal(err)
			}
			if err := s.Save(State{Epoch: 2}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			tried := 0
			for n := range len(disk.ops) + 1 {
				for _, after := range crashes(start, disk.ops[:n]) {
					tried++
					st, found, err := loadFrom(t, dir, after)
					old := err == nil && found == tt.previous && (!found || st.Epoch == 1)
					fresh := err == nil && found && st.Epoch == 2
					if !old && !fresh || n == len(disk.ops) && !fresh {
						t.Errorf("crash after %d of %d operations: %+v, %v, %v", n, len(disk.ops), st, found, err)
					}
				}
			}
			t.Logf("RESULT %d disks after %d operations", tried, len(disk.ops))
		})
	}
}

func TestFailingDisk(t *testing.T) {
	for failAt := 1; ; failAt++ {
		dir := t.TempDir()
		raw, err := encode(State{Epoch: 1})
		if err != nil {
			t.Fatal(err)
		}
		disk := &logFS{files: map[string][]byte{filepath.Join(dir, fileName): raw}, failAt: failAt}
		s := open(t, dir, disk)
		if _, _, err := s.Load(); err != nil {
			t.Fatal(err)
		}
		err = s.Save(State{Epoch: 2})
		if err == nil {
			if failAt < 4 {
				t.Fatalf("operation %d failed unnoticed", failAt)
			}
			return // past the last operation
		}
		if !errors.Is(err, errDisk) || s.State().Epoch != 1 {
			t.Errorf("operation %d: %v, epoch in memory %d", failAt, err, s.State().Epoch)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if st, found, err := loadFrom(t, dir, disk.files); err != nil || !found || st.Epoch != 1 && st.Epoch != 2 {
			t.Errorf("operation %d: left %+v, %v, %v", failAt, st, found, err)
		}
		// The next attempt works, whatever is left.
		disk.failAt = 0
		s = open(t, dir, disk)
		if _, _, err := s.Load(); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(State{Epoch: 3}); err != nil {
			t.Errorf("after operation %d failed: %v", failAt, err)
		}
	}
}

// The real disk does what the recorded one claims.
func TestWriteFileReplaces(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name+".tmp", []byte("leftover, longer than what follows"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "2"} {
		if err := WriteFile(OS{}, name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(name + ".tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("leftover: %v", err)
	}
}
