package admission

// Standing is what an admitted peer is to this node. The zero Standing is a stranger's.
type Standing uint8

// The standings.
const (
	Stranger Standing = iota // proved nothing
	Guest                    // reserved: has a ticket, and nobody's enrolment yet
	Member                   // belongs to the network
)

// String implements fmt.Stringer.
func (s Standing) String() string {
	switch s {
	case Guest:
		return "guest"
	case Member:
		return "member"
	}
	return "stranger"
}

// May reports whether a peer of this standing may open, and be sent, streams of a
// protocol. Members may all. What guests may is decided with tickets; until then it is
// nothing.
func (s Standing) May(protocol string) bool { return s == Member && protocol != "" }
