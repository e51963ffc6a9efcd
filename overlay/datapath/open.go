package datapath

import (
	"github.com/kairos-io/kairos/overlay/session"
)

// openRoom is how many bytes of datagrams are open at once: what the kernel puts
// together at most, and a little more.
const openRoom = 1<<16 + 4<<10

// longestHeaders bounds the headers of a packet that is a segment: IPv6 and TCP with all
// of its options.
const longestHeaders = 40 + 60

// opener opens datagrams next to each other, so that the payloads of segments in a row
// lie in memory as they are in the stream that they are parts of: the kernel then gets
// them as one piece. The headers of each segment are opened over the end of the segment
// before it, and leave again when they have been looked at.
//
//	before   | headers | payload 1 |
//	next     | headers | payl| headers | payload 2 |       what was there is kept
//	join     | headers | payload 1 | payload 2 |
//	keep     | headers | payload 1 | headers | payload 2 |
//
// It is for one goroutine. Its memory is good until reset.
type opener struct {
	room    []byte
	payload []byte // of the datagram that was opened last
	lap     int    // bytes of it that lie over what was there
	saved   [longestHeaders]byte
}

// reset forgets all that was opened.
func (o *opener) reset() {
	if o.room == nil {
		o.room = make([]byte, 0, openRoom)
	}
	o.room, o.payload, o.lap = o.room[:0], nil, 0
}

// fits reports whether there is room for another datagram of n bytes, wherever it lies.
func (o *opener) fits(n int) bool { return len(o.room)+n <= cap(o.room) }

// next opens a datagram whose first lap bytes may be headers that somebody looks at
// first. Errors are those of session.Keys.Open, and session.ErrPacket for nothing in it.
func (o *opener) next(keys *session.Keys, datagram []byte, lap int) error {
	if lap > min(len(o.room), longestHeaders) {
		lap = 0
	}
	at := len(o.room) - lap
	copy(o.saved[:lap], o.room[at:])
	out, err := keys.Open(o.room[:at], datagram)
	if err == nil && len(out) == at {
		err = session.ErrPacket
	}
	if err != nil { // whatever it has left there
		copy(o.room[at:], o.saved[:lap])
		return err
	}
	o.payload, o.lap = out[at:], lap
	return nil
}

// join keeps what is behind the headers, where it lies.
func (o *opener) join() {
	at := len(o.room) - o.lap
	end := at + len(o.payload)
	copy(o.room[at:at+o.lap], o.saved[:o.lap])
	o.room, o.payload, o.lap = o.room[:end], nil, 0
}

// keep leaves all of it, behind what was there, and returns it.
func (o *opener) keep() []byte {
	end := len(o.room)
	at := end - o.lap
	room := o.room[: end+len(o.payload) : cap(o.room)]
	if o.lap > 0 {
		copy(room[end:], o.payload)
		copy(room[at:end], o.saved[:o.lap])
	}
	o.room, o.payload, o.lap = room, room[end:len(room):len(room)], 0
	return o.payload
}

// drop gives up what keep has kept.
func (o *opener) drop() {
	o.room, o.payload = o.room[:len(o.room)-len(o.payload)], nil
}
