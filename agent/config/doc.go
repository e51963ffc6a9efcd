// Package config reads the kairos block of a #cloud-config. The rest of the
// file belongs to cloud-init: System hands it on, every text byte for byte.
//
// Reading is strict: an unknown key, a wrong type or a value that cannot work
// is an error that names file, line and key, gives the reason and where there
// is one the nearest valid key. All problems are reported at once, and a
// Config that was returned cannot be wrong.
//
// What nobody reads, or what will not do what its writer meant, is not refused:
// it is a warning, in the same form.
//
// Several files are merged key by key, later files win: mappings are merged,
// lists are replaced as a whole. Every value remembers where it stands.
//
// The keys, their types and the JSON schema all come from the struct tags of
// Config, so they cannot disagree.
package config
