package k3s

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// DefaultLogFile takes what k3s prints.
const DefaultLogFile = "/var/log/kairos/k3s.log"

// maxLog is the size at which the log is turned over; one older file is kept.
const maxLog = 32 << 20

// leaseTime is how long an interrupted pull's blobs are kept.
const leaseTime = 24 * time.Hour

// RotateLog turns the log over when it has grown too large. The shim holds the
// file open for appending, so it is copied and then cut, not renamed; lines
// written between the two are lost.
func (r *Runtime) RotateLog() error { return rotate(r.logs, maxLog) }

func rotate(path string, limit int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the k3s log: %w", err)
	}
	err = rotateOpen(f, path+".1", limit)
	return errors.Join(err, f.Close())
}

func rotateOpen(f *os.File, old string, limit int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() < limit {
		return err
	}
	if err := keep(f, old); err != nil {
		if info.Size() < 2*limit {
			return err
		}
		// The disk is full, say: better no old log than a log that keeps it full.
		return errors.Join(fmt.Errorf("%w; the log was cut without keeping it", err), f.Truncate(0))
	}
	return f.Truncate(0)
}

// keep copies the log to the older file. Half a copy is removed.
func keep(f *os.File, old string) error {
	to, err := os.OpenFile(old, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("open the old k3s log: %w", err)
	}
	_, err = io.Copy(to, f)
	if err = errors.Join(err, to.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy the k3s log: %w", err), os.Remove(old))
	}
	return nil
}
