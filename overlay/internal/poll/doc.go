// Package poll is for file descriptors that a thread of their own reads, outside of
// the runtime's poller: a packet then wakes who reads it, and nobody else. Threads
// that wake each other cost more than small packets do.
package poll
