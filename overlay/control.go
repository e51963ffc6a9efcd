package overlay

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/wire"
)

var _ api.Control = (*Node)(nil)

// SetAnnotations implements api.Control.
func (n *Node) SetAnnotations(notes map[string]string) error {
	if err := wire.ValidateAnnotations(notes); err != nil {
		return badRequest(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if maps.Equal(n.world.annotations, notes) {
		return nil
	}
	next := n.world
	next.annotations = maps.Clone(notes)
	if err := n.trySealLocked(next); err != nil {
		return badRequest(err)
	}
	n.world = next
	n.told.Annotations = next.annotations
	n.wake()
	return n.saveToldLocked()
}

// SetRoutes implements api.Control.
func (n *Node) SetRoutes(r api.Routes) error {
	if err := n.checkRoutes(r); err != nil {
		return badRequest(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	next := n.world
	next.routes = api.Routes{Announce: slices.Clone(r.Announce), Accept: r.Accept, Local: slices.Clone(r.Local)}
	if equalRoutes(n.world.routes, next.routes) {
		return nil
	}
	if err := n.trySealLocked(next); err != nil {
		return badRequest(err)
	}
	n.world = next
	n.told.Routes = &next.routes
	n.wake()
	return n.saveToldLocked()
}

func equalRoutes(a, b api.Routes) bool {
	return slices.Equal(a.Announce, b.Announce) && a.Accept == b.Accept && slices.Equal(a.Local, b.Local)
}

// checkRoutes refuses prefixes that would take the overlay's own addresses, or
// this machine's network, away.
func (n *Node) checkRoutes(r api.Routes) error {
	all := slices.Concat(r.Announce, r.Local)
	if r.Accept.Range.IsValid() {
		all = append(all, r.Accept.Range)
	}
	for _, p := range all {
		switch {
		case !p.IsValid() || p != p.Masked() || p.Addr().Is4In6():
			return fmt.Errorf("%s is not a prefix without host bits", p)
		case p.Bits() < 8:
			return fmt.Errorf("%s is too wide: at least /8", p)
		case p.Overlaps(n.network.V4) || p.Overlaps(n.network.V6):
			return fmt.Errorf("%s overlaps the overlay's own range", p)
		}
	}
	for _, p := range r.Announce {
		if !r.Accept.Range.IsValid() || p.Bits() < r.Accept.Range.Bits() || !r.Accept.Range.Contains(p.Addr()) {
			return fmt.Errorf("announced %s lies outside the accepted range %s", p, r.Accept.Range)
		}
	}
	return nil
}

// trySealLocked finds out before anything changes whether the record fits.
func (n *Node) trySealLocked(w world) error {
	_, err := wire.Seal(n.key, w.record())
	return err
}

// Pin implements api.Control. It returns once the pin is on disk.
func (n *Node) Pin() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.world.claim.pinned {
		return nil
	}
	next := n.state
	next.Attempt, next.Pinned = n.world.claim.attempt, true
	if err := n.writeState(next); err != nil {
		return err
	}
	n.state = next
	n.world.claim.pinned = true
	n.wake()
	return nil
}

// Sign implements api.Control. The API admits the agent's contexts only.
func (n *Node) Sign(context string, message []byte) ([]byte, error) {
	sig := n.key.Sign(context, message)
	if sig == nil {
		return nil, badRequest(errors.New("sign: the context may hold lower-case letters, digits, dots, dashes and slashes only"))
	}
	return sig, nil
}

// Certificate implements api.Control.
func (n *Node) Certificate(publicKey []byte) ([][]byte, error) {
	n.mu.Lock()
	s := subject{publicKey: publicKey, name: n.world.name, addrs: n.world.claim.addrs()}
	n.mu.Unlock()
	return certify(n.key, s, time.Now())
}

// setCluster takes the agent's word on what GET /api/v1/cluster answers.
func (n *Node) setCluster(c api.Cluster) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told.Cluster = &c
	return n.saveToldLocked()
}

func (n *Node) saveToldLocked() error {
	if n.opts.RuntimeDir == "" {
		return nil
	}
	n.told.Version = stateVersion
	return writeJSON(filepath.Join(n.opts.RuntimeDir, controlFile), n.told, n.told.unknown)
}

func (n *Node) writeState(s state) error {
	if n.opts.StateDir == "" {
		return nil
	}
	return writeJSON(filepath.Join(n.opts.StateDir, stateFile), s, s.unknown)
}

func badRequest(err error) error {
	return &api.Error{Message: err.Error(), Status: http.StatusBadRequest}
}

type prefix = netip.Prefix
