package rights

// The notes (annotations) that a node's agent puts into its record. The overlay
// carries them and never interprets them; only this package does.
const (
	NoteRoleWanted = "role.wanted"   // master | worker, as configured; absent: automatic
	NoteRole       = "role"          // server | worker; absent: not decided
	NotePhase      = "phase"         // what the agent is doing
	NoteClusterUID = "cluster.uid"   // the cluster this node belongs to
	NoteEpoch      = "cluster.epoch" // decimal
	NoteServer     = "server"        // address:port of the Kubernetes API that runs here
	NoteCA         = "ca"            // hex SHA-256 of that API's CA
	NoteVotes      = "votes"         // VotesNo: takes no part in the agreement at present; absent: it does
	NoteWaiting    = "waiting"       // one line: what the node waits for
	NoteReady      = "ready"         // "true" once the node serves
	NoteKubernetes = "kubernetes"    // version that runs here, of a server as its image is called: v1.35.8+k3s1
	NoteImages     = "images"        // hex SHA-256 of the index of images it has to give; absent: none
)

// Values of notes that mean something to others.
const (
	VotesNo       = "no"       // of NoteVotes
	PhaseDisabled = "disabled" // of NotePhase: this machine is on the network only
	PhaseLeaving  = "leaving"  // of NotePhase: it goes, at the latest with its next boot
)
