package kubeconfig

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/rights"
)

// Bounds of asking for proofs: every member can say that it is a server.
const (
	maxCandidates = 16
	proofTimeout  = 10 * time.Second
)

// server is a member that says it runs the cluster, and what it says.
type server struct {
	api.Node
	claim rights.Claim
}

// find returns the members that say they run a server of the cluster, connected
// ones first. Nothing of that is proven.
func find(nodes []api.Node, networkID string) ([]server, error) {
	known, waiting, members := map[string]bool{}, "", 0
	var servers []server
	for _, n := range nodes {
		may := n.Rights()
		if id, ok := may.Machine(); ok {
			known[id] = true
		}
		claim, ok := may.Claim(networkID)
		if !ok {
			continue
		}
		members++
		if waiting == "" {
			waiting = claim.Waiting
		}
		if may.May(rights.Serve, networkID) && claim.Serves() {
			servers = append(servers, server{n, claim})
		}
	}
	if members == 0 {
		return nil, unknownNetwork(known, networkID)
	}
	if len(servers) == 0 {
		if waiting == "" {
			waiting = "no server is running"
		}
		return nil, &api.Error{
			Message: fmt.Sprintf("there is no cluster %q yet: %s", networkID, waiting),
			Hint:    "`kairos status` shows what is being waited for",
			Status:  http.StatusNotFound,
		}
	}
	slices.SortStableFunc(servers, func(a, b server) int { return rank(a) - rank(b) })
	return servers, nil
}

// proven returns those of the candidates that the agreement named for the
// cluster which they claim, as the proof that each of them gives says. It
// refuses to choose between servers of different clusters.
func (c Client) proven(ctx context.Context, candidates []server, networkID string) ([]server, error) {
	candidates = candidates[:min(len(candidates), maxCandidates)]
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	errs := make([]error, len(candidates))
	var wg sync.WaitGroup
	for i, s := range candidates {
		wg.Go(func() { errs[i] = c.prove(ctx, s, networkID) })
	}
	wg.Wait()
	var servers []server
	var why error // the first, of the best candidate
	for i, s := range candidates {
		if errs[i] == nil {
			servers = append(servers, s)
		} else if why == nil {
			why = fmt.Errorf("server %s: %w", s.Name, errs[i])
		}
	}
	if len(servers) == 0 {
		return nil, noAnswer(why)
	}
	return servers, sameCluster(servers, networkID)
}

// prove asks a candidate for the proof of its cluster. This machine itself needs none.
func (c Client) prove(ctx context.Context, s server, networkID string) error {
	if s.Self {
		return nil
	}
	raw, err := c.Peers.Post(ctx, s.ID, ProofPath, nil)
	if err != nil {
		return err
	}
	p, err := c.Verify(networkID, raw)
	switch {
	case err != nil:
		return fmt.Errorf("its proof: %w", err)
	case p.UID != s.claim.UID:
		return errors.New("it proves another cluster than it claims")
	case !slices.Contains(p.Servers, s.ID):
		return errors.New("the machines did not agree on it as a server")
	}
	return nil
}

// rank orders servers: this machine itself, those that are connected, the rest.
func rank(s server) int {
	switch {
	case s.Self:
		return 0
	case s.Connected:
		return 1
	}
	return 2
}

// sameCluster refuses to choose between servers of different clusters: whoever
// has the token can make one, and who writes secrets into a cluster must not
// meet that of somebody else. Those that are gone do not count next to those
// that are there, nor do others on a server itself.
func sameCluster(ranked []server, networkID string) error {
	first := ranked[0]
	for _, s := range ranked[1:] {
		if rank(s) != rank(first) {
			break
		}
		if s.claim.UID == first.claim.UID && s.claim.CA == first.claim.CA {
			continue
		}
		return &api.Error{
			Message: fmt.Sprintf("%s and %s both run the cluster %q, and it is not the same one", first.Name, s.Name, networkID),
			Hint:    "find out which of the two is yours and run `sudo kairos get-kubeconfig` there; switch the other off",
			Status:  http.StatusConflict,
		}
	}
	return nil
}
