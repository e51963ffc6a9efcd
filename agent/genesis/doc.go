// Package genesis agrees once on who creates a cluster among nodes that share
// nothing but a token.
//
// Two groups that never hear of each other look exactly like one group whose
// other nodes do not exist. So a number is needed, and the token carries it: n
// declared nodes, quorum Q = n/2+1. Any two groups of Q among up to 2Q-1 voters
// share a node, and a node votes durably and once.
//
// Two registers per epoch, each a single-decree Paxos with a count quorum:
//
//	Genesis(e)  the cluster's UID and its servers
//	Outcome(e)  started, or abandoned, of the UID that Genesis(e) decided
//
// The named server wins Outcome(e)=started as the last step before its first
// start. Anyone may propose abandoned when no server shows up for a long time;
// only a certificate of abandoned(e) opens the voting of epoch e+1. A server
// that was paused in between finds its outcome taken and becomes a worker.
//
// Q signed accepts of one value under one ballot are a certificate, which
// anyone with the network's public fingerprint can verify; it spreads by being
// asked for. A started cluster is final: whoever has the token can make keys that
// sign a certificate of their own, so a node that knows of a started cluster, runs
// in one or was told its UID by a person never moves to another, whatever the
// epoch; it keeps the first other one as a rival, and people choose. Time is used for politeness only: no timer and no clock can make
// two clusters, they can only delay one.
//
// A node that may have forgotten votes gives none any more and goes on learning: its
// agent says so (Abstain), or a proof carries a vote under its own key that it does
// not remember. What is left is a whole disk put back in time or copied, which looks
// like a node that never voted.
//
// core.go, proposal.go, decision.go, timing.go and their types are pure: state
// and message in, state and message out. Driver is the loop that saves, signs
// and sends. Nodes that hold the token are trusted not to lie about votes of
// their own; everything that a third party must believe is signed.
//
// Log fields: cluster, rival, epoch, peer, err.
package genesis
