// Package kubeconfig gives people short-lived access to the cluster.
//
//	CLI ──unix socket── bridge or agent ──mutual TLS over the overlay── a server's agent
//	      makes a key, keeps it                      signs a client certificate for it
//
// Any member can say that it is the server. Who asks believes those that the
// agreement named, by the certificate that each of them shows.
//
// The private key never leaves the machine of who asks, nothing administrative
// lies in shared state, and a certificate ends by itself: Kubernetes cannot
// revoke one. The group in it gets its rights from a manifest, so that taking
// the binding away takes the rights of all certificates away.
package kubeconfig

import "time"

// Path is where a server's agent answers GrantRequests.
const Path = "/v1/kubeconfig"

// ProofPath is where an agent answers with the proof of its cluster: the
// agreement's certificate. It takes nothing.
const ProofPath = "/v1/proof"

// Lifetimes of a client certificate.
const (
	DefaultTTL = 24 * time.Hour
	MinTTL     = 5 * time.Minute
	MaxTTL     = 7 * 24 * time.Hour
	// backdate lets clocks differ a little between server and user.
	backdate = 5 * time.Minute
)

// Names in Kubernetes: the user is userPrefix + the member's name.
const (
	userPrefix = "kairos:"
	group      = "kairos:admins"
)

// ManifestName is the file name of Manifest in k3s' manifest directory.
const ManifestName = "kairos-admins.yaml"

// Manifest binds the group to the rights of an administrator.
const Manifest = `# Written by kairos-agent: who gets a kubeconfig from it may administer the cluster.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: kairos-admins
  labels:
    app.kubernetes.io/managed-by: kairos
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: cluster-admin
subjects:
- apiGroup: rbac.authorization.k8s.io
  kind: Group
  name: ` + group + `
`

// GrantRequest asks for a certificate.
type GrantRequest struct {
	UID        string `json:"uid"`         // of the cluster that is meant
	PublicKey  []byte `json:"public_key"`  // PKIX, DER
	TTLSeconds int64  `json:"ttl_seconds"` // 0: DefaultTTL
}

// Grant is the answer. Nothing in it is secret.
type Grant struct {
	Certificate []byte `json:"certificate"` // PEM
	CA          []byte `json:"ca"`          // of the API server, PEM
	Server      string `json:"server"`      // https://<overlay address>:6443
}
