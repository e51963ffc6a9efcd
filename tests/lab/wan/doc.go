// Package wan joins two network namespaces by a link that behaves like a long and
// bad one: with delay, loss, duplicates, frames out of order, a limit of speed. It
// is for kernels without netem, and works in userspace:
//
//	namespace A                                         namespace B
//	  TAP  -> reader -> fate -> in flight, by due time -> writer -> TAP
//	  TAP <- writer <- in flight, by due time <- fate <- reader <-  TAP
//
// What becomes of a frame is decided when it enters, by a value that is given the
// time and random numbers (path.enter): the same seed and the same arrivals have the
// same end. One goroutine reads each end; one delivers for both directions, on a
// thread of its own that sleeps until the next frame is due.
//
// The devices offer no offload of any kind: the kernel hands over each frame of a
// burst by itself and with its checksums, so that a loss is the loss of one packet.
// They are not persistent, so that they end with the process at the latest.
//
// A frame costs no allocation: the buffers of frames in flight are used again, and
// there are as many of them as were ever in flight at once.
package wan
