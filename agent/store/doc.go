// Package store keeps what a node must not forget: its votes in the genesis
// agreement, the phase of its role, and what it pinned.
//
// There is one file with a version and a checksum, written atomically: a
// temporary file in the same directory, fsync, rename, fsync of the directory.
// After a crash at any point a reader finds the old state or the new one.
//
// A newer version may have added fields: they are kept wherever they stand, so that
// a machine can go back to the version before and forward again.
//
// A file that is absent, one that cannot be read, one that is damaged and one
// that a newer program keeps from this one are four different things, and only the first is an
// empty state: whoever took the others for empty could vote twice or create a
// second cluster. Until a Load has succeeded, Save refuses.
package store
