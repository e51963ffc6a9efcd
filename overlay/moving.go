package overlay

import (
	"sync"

	"github.com/kairos-io/kairos/overlay/mesh"
)

// movingMesh is the mesh as gossip sees it: a peer whose connection was
// replaced comes and goes. What gossip wrote to the old connection may be lost
// without an error, so it starts over on the new one, with a digest.
type movingMesh struct{ *mesh.Mesh }

// Events implements gossip.Mesh.
func (m movingMesh) Events() (<-chan mesh.Event, func()) {
	in, cancel := m.Mesh.Events()
	out, quit := make(chan mesh.Event), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(out)
		for e := range in {
			for _, e := range restarts(e) {
				select {
				case out <- e:
				case <-quit:
					return
				}
			}
		}
	}()
	return out, sync.OnceFunc(func() {
		close(quit)
		cancel()
		<-done
	})
}

// restarts turns a changed path into a peer that went and came.
func restarts(e mesh.Event) []mesh.Event {
	if e.Kind != mesh.PathChanged {
		return []mesh.Event{e}
	}
	return []mesh.Event{{Kind: mesh.PeerDown, Peer: e.Peer}, {Kind: mesh.PeerUp, Peer: e.Peer}}
}
