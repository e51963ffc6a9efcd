// Package overlaytest runs a whole mesh in one process, over real sockets on
// loopback: nodes with their mesh, member table and gossip, that a test can
// stop, restart, part and heal. It is for tests only.
package overlaytest
