package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// FS is what the write protocol does to a disk. It exists so that a test can
// record the operations and enumerate every crash between them.
type FS interface {
	// ReadFile returns the content; an absent file is fs.ErrNotExist.
	ReadFile(name string) ([]byte, error)
	// Create makes an empty file with mode 0600, truncating one that is there.
	Create(name string) (File, error)
	// Rename replaces to by from; durable only after SyncDir.
	Rename(from, to string) error
	// Remove deletes a file.
	Remove(name string) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(dir string) error
}

// File is a file being written; durable only after Sync.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// OS is the real disk.
type OS struct{}

var _ FS = OS{}

// fileMode: state names the nodes of a private network, nobody else's business.
const fileMode = 0o600

// ReadFile implements FS.
func (OS) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }

// Create implements FS.
func (OS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return nil, err
	}
	// A leftover of an earlier crash keeps its old mode.
	if err := f.Chmod(fileMode); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(err, d.Close())
	}
	return d.Close()
}

// WriteFile replaces the file name by data so that a crash leaves the old
// content or the new one. It is durable when WriteFile returned nil; after an
// error either content may be there. One writer at a time.
func WriteFile(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := writeSynced(fsys, tmp, data); err != nil {
		// The leftover is harmless, the next write truncates it; tell of the first error.
		_ = fsys.Remove(tmp)
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		_ = fsys.Remove(tmp)
		return fmt.Errorf("rename %s: %w", tmp, err)
	}
	dir := filepath.Dir(name)
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

func writeSynced(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), f.Close())
	}
	// Without this the rename can become durable before the content does.
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync %s: %w", name, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", name, err)
	}
	return nil
}
