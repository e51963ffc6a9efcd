// Package route answers two questions about every packet: which member is
// behind this destination, and may this member send from this source?
//
// A Table is built from what the members say about themselves and is never
// changed afterwards: whoever forwards packets swaps one for the next. Building
// is where trust is decided. Every node that knows the same members builds the
// same table, whatever the order in which it heard of them; only a prefix that
// is in use stays with who had it first.
package route
