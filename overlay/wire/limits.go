package wire

// Versions of the encodings. A reader refuses every other one, since it cannot know
// where what ends. What is new in a record is a field, not a version: see the package
// comment.
const (
	recordVersion  = 2
	messageVersion = 1
)

// Limits, which writer and reader both enforce. Sizes are in bytes.
const (
	// MaxRecord bounds a signed record.
	MaxRecord = 8 << 10
	// MaxKind bounds the word for what a member is.
	MaxKind = 16
	// MaxName bounds a node's name, which is one DNS label (RFC 1035).
	MaxName = 63
	// MaxNetworkID bounds the name of a cluster.
	MaxNetworkID = 64
	// MaxVersion bounds the text of a software version.
	MaxVersion = 64
	// MaxAddrs bounds the number of overlay addresses of a member.
	MaxAddrs = 4
	// MaxUnderlay bounds the number of underlay addresses of a member.
	MaxUnderlay = 16
	// MaxPrefixes bounds the number of prefixes behind a member.
	MaxPrefixes = 8
	// MaxAnnotations bounds the number of annotations of a member.
	MaxAnnotations = 32
	// MaxAnnotationKey bounds the name of an annotation.
	MaxAnnotationKey = 64
	// MaxAnnotationValue bounds the text of an annotation.
	MaxAnnotationValue = 1024
	// MaxCredential bounds what proves a member's rights.
	MaxCredential = 512
	// RunSize is the size of the name of a process's run.
	RunSize = 16

	// MaxPacket bounds a packet in a frame.
	MaxPacket = 65535
	// FrameHeader is how much a frame adds to its packet.
	FrameHeader = 4

	// MaxMembers bounds how many members anybody keeps.
	MaxMembers = 4096
	// MaxDigest bounds the entries of a digest: members, and as many that are gone.
	MaxDigest = 2 * MaxMembers
	// MaxDelta bounds the records of one delta.
	MaxDelta = 512
	// MaxMessage bounds the body of a gossip message.
	MaxMessage = 512 << 10
)
