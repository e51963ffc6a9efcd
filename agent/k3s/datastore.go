package k3s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/store"
)

// Kubernetes cannot go back to an earlier minor version on the data of a later one. So
// what a server has is copied before another minor version first starts, and put back when
// the earlier one returns:
//
//	running v1.35  ──KeepDatastore──>  kept/ of v1.35, then v1.36 starts
//	v1.36 is kept  ──DropKept──────>   no copy
//	v1.35 returns  ──RestoreDatastore─> kept/ -> restoring/ -> server/; what v1.36 had goes to undone/
//
// A directory gets its name once it is complete on disk, and loses it before anything in
// it is deleted. restoring/ is emptied by renames, each of which may have happened or not.

// serverItems are what a server's data consists of, in k3s' directory "server": the
// datastore, the keys and certificates and the key for encrypted secrets that go with it,
// and k3s' own token files. All of it is secret.
var serverItems = []string{"db", "tls", "cred", "token", "agent-token", "node-token"}

// Names in the agent's own directory.
const (
	ranName       = "ran.json"  // which k3s runs, and has the data now
	keptDir       = "kept"      // the copy, and in it
	ofName        = "of.json"   // whose it is
	restoringDir  = "restoring" // the copy while it is put back
	undoneDir     = "undone"    // what the later version had written
	unfinishedDir = "unfinished"
	goneDir       = "gone" // being deleted
)

// Versions is what is known of the data of a server.
type Versions struct {
	Ran       api.K3s  // ran last, and had it; zero: nobody wrote it down
	Kept      *api.K3s // had it when it was copied; nil: there is no copy
	Restoring bool     // the copy is being put back: RestoreDatastore is to be called again
}

// Versions reads what is written down beside the server's data.
func (f Files) Versions() (Versions, error) {
	var v Versions
	if _, err := readJSON(f.own(ranName), &v.Ran); err != nil {
		return Versions{}, fmt.Errorf("read whose data the server has: %w", err)
	}
	var of api.K3s
	found, err := readJSON(filepath.Join(f.own(keptDir), ofName), &of)
	if err != nil {
		return Versions{}, fmt.Errorf("read whose data was copied: %w", err)
	}
	if found {
		v.Kept = &of
	}
	if _, err = os.Stat(f.own(restoringDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Versions{}, fmt.Errorf("look for data that is being put back: %w", err)
	}
	v.Restoring = err == nil
	return v, nil
}

// SetRan writes down which k3s runs, and gets a server's data, before that first starts.
func (f Files) SetRan(k api.K3s) error {
	var was api.K3s
	if found, err := readJSON(f.own(ranName), &was); err == nil && found && was == k {
		return nil
	}
	return f.writeJSON(f.own(ranName), k)
}

// KeepDatastore copies the server's data, which is k's; k3s must not run. A copy that
// there was is dropped first. progress is called now and then.
func (f Files) KeepDatastore(ctx context.Context, k api.K3s, progress func()) error {
	if err := f.DropKept(); err != nil {
		return err
	}
	if err := f.keep(ctx, k, progress); err != nil {
		// What there is of it takes space that is missing, maybe.
		return errors.Join(fmt.Errorf("copy the cluster's data: %w", err), os.RemoveAll(f.own(unfinishedDir)))
	}
	return nil
}

func (f Files) keep(ctx context.Context, k api.K3s, progress func()) error {
	to := f.own(unfinishedDir)
	if err := errors.Join(os.RemoveAll(to), os.MkdirAll(to, 0o700)); err != nil {
		return err
	}
	c := copier{ctx: ctx, progress: progress}
	for _, item := range serverItems {
		err := c.copy(filepath.Join(f.server(), item), filepath.Join(to, item))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := f.writeJSON(filepath.Join(to, ofName), k); err != nil {
		return err
	}
	return f.rename(to, f.own(keptDir))
}

// DropKept deletes the copy, if there is one.
func (f Files) DropKept() error {
	if err := f.discard(f.own(keptDir)); err != nil {
		return fmt.Errorf("drop the copy of the cluster's data: %w", err)
	}
	return nil
}

// discard deletes one of the agent's own directories, which loses its name first, and what
// an interruption has left of another one. It may be gone already.
func (f Files) discard(dir string) error {
	gone := f.own(goneDir)
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	err := f.rename(dir, gone)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, os.RemoveAll(gone))
}

// RestoreDatastore puts the copy back, or goes on where it was interrupted; k3s must not
// run. What was there is moved aside and stays until the next time.
func (f Files) RestoreDatastore() error {
	if err := f.restore(); err != nil {
		return fmt.Errorf("put the cluster's data back: %w", err)
	}
	return nil
}

func (f Files) restore() error {
	from, aside := f.own(restoringDir), f.own(undoneDir)
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(f.own(keptDir)); err != nil {
			return err // before anything is given up for it
		}
		if err := errors.Join(os.RemoveAll(aside), os.MkdirAll(f.server(), 0o700)); err != nil {
			return err
		}
		if err := f.rename(f.own(keptDir), from); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	for _, item := range serverItems {
		if err := putBack(item, from, f.server(), aside); err != nil {
			return err
		}
	}
	for _, dir := range []string{f.server(), aside, from} {
		if err := (store.OS{}).SyncDir(dir); err != nil {
			return err
		}
	}
	var of api.K3s
	if _, err := readJSON(filepath.Join(from, ofName), &of); err != nil {
		return err
	}
	if err := f.SetRan(of); err != nil {
		return err
	}
	return f.discard(from)
}

// putBack moves an item from the copy to its place, and what is there aside. An item that
// is not in the copy any more is in its place.
func putBack(item, from, to, aside string) error {
	_, err := os.Lstat(filepath.Join(from, item))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = os.Rename(filepath.Join(to, item), filepath.Join(aside, item))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(filepath.Join(from, item), filepath.Join(to, item))
}

func (f Files) server() string { return filepath.Join(f.dir(), "server") }

// rename renames one of the agent's own directories, durably.
func (f Files) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return store.OS{}.SyncDir(filepath.Dir(to))
}

// copier copies files and directories with their modes, and has all on disk.
type copier struct {
	ctx      context.Context
	progress func()
}

func (c copier) copy(from, to string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	c.progress()
	st, err := os.Lstat(from)
	if err != nil {
		return err
	}
	switch st.Mode().Type() {
	case 0:
		return c.file(from, to, st.Mode().Perm())
	case fs.ModeDir:
		return c.dir(from, to, st.Mode().Perm())
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	return nil // a socket, which whoever listens makes anew
}

func (c copier) dir(from, to string, mode fs.FileMode) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(to, 0o700), os.Chmod(to, mode)); err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.copy(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return store.OS{}.SyncDir(to)
}

// copyPiece is how much of a file is copied between two looks at the time, in bytes.
const copyPiece = 16 << 20

func (c copier) file(from, to string, mode fs.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for err == nil {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		c.progress()
		_, err = io.CopyN(out, in, copyPiece)
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return errors.Join(out.Chmod(mode), out.Sync())
}
