// Package upgrade finds the release that a reference names - in a registry, a
// mirror of it, or an OCI layout on disk - and checks it before a machine's disk
// is touched:
//
//	reference ──> index, by digest ──> signature ──> release manifest for this
//	machine ──> configuration ──> Offer ──> slots.Writer
//
// An offer that is older than what runs is told from a new one by its version,
// or by the release's date where versions have no order: a signature alone does
// not say that a release is the latest.
//
// An Offer is a slots.Source: its parts are streamed, each byte verified. All of
// it is bounded by what the partitions hold.
package upgrade
