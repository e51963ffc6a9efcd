// Package poll is for file descriptors through which packets go. Calls on them enter
// the kernel without telling the scheduler; only waits do. Otherwise the runtime's
// monitor, which takes processors away from those that are in the kernel for 20 us,
// would be awake all the time and take a sixth of it.
//
// A Descriptor is read by one goroutine for everybody, until there is nothing left. It
// then waits by the runtime's poller, which hears of the first thing that comes and not
// of each: what comes while the goroutine reads wakes nobody.
//
// Other ways to wait were tried. A thread that sleeps in a system call of its own keeps
// its processor until the monitor takes it away, and that costs more than packets that
// come now and then. And with a locked thread each packet wakes two: the one that polls
// and the one that reads.
package poll
