// Package poll is for file descriptors that one goroutine reads for everybody, until
// there is nothing left, and then waits. Their calls enter the kernel without telling
// the scheduler; only the wait does. It goes through the runtime's poller, which hears
// of the first thing that comes and not of each: what comes while the goroutine reads
// wakes nobody.
//
// Other ways to wait were tried. A thread that sleeps in a system call of its own keeps
// its processor until the runtime's monitor takes it away, and the monitor, awake for
// that, costs more than packets that come now and then. And with a locked thread each
// packet wakes two: the one that polls and the one that reads.
package poll
