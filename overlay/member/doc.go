// Package member is who is in the mesh, as far as this node heard: one signed
// record per member, merged by sequence number.
//
// It is a value with one owner: it has no lock, no goroutine, no clock and no
// network. Whoever drives it passes the time in, which must carry Go's monotonic
// reading, since wall clocks decide nothing. Everybody else reads a Snapshot,
// which never changes.
//
// # Life of a record
//
//	          newer record            no refresh for Expiry,
//	          (also once gone)        and not connected
//	(unknown) ────────────▶ present ──────────────▶ gone ──▶ (unknown)
//	                          │  ▲                    ▲   after Tombstone,
//	            record "left" ▼  │ newer record       │   or too many gone
//	                         left ────────────────────┘
//	                               after LeftExpiry
//
// Present and left are live: tables are compared by them alone (Summary,
// Digests). The last record of those who are gone stays as a tombstone, so that a
// peer that has not forgotten yet does not bring them back, and so that an author
// that forgot its sequence numbers can be shown how far it had come.
package member
