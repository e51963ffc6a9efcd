package store

import "errors"

// What Open, Load and Save may return, wrapped. None of them means "empty".
var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("state directory is in use by another process")
	// ErrCorrupt: the file is there and is not what Save wrote.
	ErrCorrupt = errors.New("state file is damaged")
	// ErrNewer: a newer program wrote the file and says that this one must not use it.
	ErrNewer = errors.New("state file was written by a newer version, which this one must not go on from")
	// ErrUnreadable: the file may be there but could not be read.
	ErrUnreadable = errors.New("state file cannot be read")
	// ErrBackward: the phase on disk is further than the one to be saved.
	ErrBackward = errors.New("state on disk is further")
	// ErrNotLoaded: Save was called without a successful Load before it.
	ErrNotLoaded = errors.New("state was not loaded, so it is not overwritten")
)
