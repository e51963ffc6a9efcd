// Package member is who is in the mesh, as far as this node heard: one signed
// record per member, merged by sequence number.
//
// It has no goroutine, no clock and no network. Whoever drives it passes the
// time in, which must carry Go's monotonic reading: wall clocks decide nothing.
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
// Of those who are gone only the sequence number stays, so that a peer that has
// not forgotten yet does not bring them back, but they themselves may return.
package member
