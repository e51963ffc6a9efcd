// Package seed spreads images from machine to machine, by digest: one machine
// that was flashed with images in it is enough for a site without a registry.
//
//	A (images baked in)                      B (none)
//	 record in the mesh: images=<tag> ────>  a tag that B does not know
//	 GET /v1/images/<tag>     <────────────  once for each tag, not for each member
//	 GET /v1/blobs/sha256:... <────────────  from A, and from whoever has it by then
//
// The tag is the SHA-256 of the index, so that who has the same images needs no
// second look, and nobody is asked who has nothing.
//
// # What is believed
//
// Content is never believed: every blob is checked against its digest, and who
// sent something else is not asked again. What an index says is believed about one
// thing only, which no digest can tell: what a name stands for. Any node with the
// token may say that, since the token is what makes a cluster admin anyway (see
// README); but it must not be a matter of whom one happened to ask. So all nodes
// that know the name have to agree, those count alone that have it from their own
// OS image if there are such, and where they differ the word of this machine's own
// control plane decides. Else the name is taken from no member, and a person is
// told. A digest in the reference leaves nothing to believe.
//
// # What goes again
//
// A copy says whose OS brought it. Once all of these say that theirs does not bring it
// any more, and nobody else's does, it is given to nobody and kept by nobody: see Fate.
// Who is away says nothing, so that a machine that brought the images of a site may
// leave it.
package seed

import (
	"errors"
	"time"
)

// Paths below which an agent serves its images.
const (
	IndexPath = "/v1/images/"
	BlobPath  = "/v1/blobs/"
)

// Limits of what is accepted and of what is given.
const (
	maxIndex  = 256 << 10 // bytes of an index
	maxImages = 256       // in it
	maxName   = 512       // bytes
	maxBakers = 8         // that are remembered of an image
	maxSize   = 4 << 20   // bytes of a manifest or an index of an image
	maxTotal  = 8 << 30   // bytes of an image

	maxServed     = 8        // blobs given at once
	maxServedEach = 2        // of these to one member
	serveRate     = 64 << 20 // bytes per second given in all: k3s and pods use the same network
	chunk         = 64 << 10 // bytes given at once
	chunkTime     = 15 * time.Second
	serveTime     = time.Hour // one blob

	askRate    = 5 // requests per second, all members together
	askBurst   = 20
	indexTime  = 10 * time.Second
	askTries   = 3           // members that are asked for one index in a row
	restTime   = time.Second // before a member that failed is asked for an index again; doubled each time
	maxRest    = time.Minute
	shakyTime  = 10 * time.Minute // a member that broke off comes last for so long
	liarTime   = time.Hour        // a member that sent wrong bytes is not asked for them for so long
	maxGrudges = 4096
	// stall and slow: a member that sends less than slow bytes in stall is left
	// for another one.
	stallTime = 15 * time.Second
	slow      = 64 << 10
)

// Sentinel errors; they come wrapped.
var (
	// ErrNobody: no member has it.
	ErrNobody = errors.New("no member has it")
	// ErrDisagree: members say different things about a name.
	ErrDisagree = errors.New("members disagree about the image")
)
