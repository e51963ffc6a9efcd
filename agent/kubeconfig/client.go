package kubeconfig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// maxRequest bounds the body of a request on the local socket, in bytes.
const maxRequest = 4 << 10

// Overlay is what is needed of the overlay daemon; *api.Client implements it.
type Overlay interface {
	Status(ctx context.Context) (api.Status, error)
	Nodes(ctx context.Context, after uint64, wait time.Duration) (api.NodeList, error)
}

// Caller asks another node's agent; *peer.Peer implements it.
type Caller interface {
	Post(ctx context.Context, to identity.ID, path string, body []byte) ([]byte, error)
}

// Client gets a kubeconfig for this machine. It holds no state.
type Client struct {
	Overlay Overlay
	Peers   Caller
	// Local answers where this machine is the server itself; nil elsewhere.
	Local func(context.Context, GrantRequest) (Grant, error)
	// Verify reads what an agent answered at ProofPath for a network_id. Its error
	// means that the answer proves nothing.
	Verify func(networkID string, proof []byte) (agentapi.Proven, error)
}

// Request is what a person asks for.
type Request struct {
	NetworkID  string `json:"network_id"`  // "": this machine's own
	TTLSeconds int64  `json:"ttl_seconds"` // 0: DefaultTTL
}

// Answer carries the file; it holds a private key.
type Answer struct {
	Kubeconfig string `json:"kubeconfig"`
}

// Fetch returns a kubeconfig file. Errors that a person can do something about
// are *api.Error with a hint.
func (c Client) Fetch(ctx context.Context, req Request) (string, error) {
	if _, err := lifetime(req.TTLSeconds); err != nil {
		return "", err
	}
	status, err := c.Overlay.Status(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the overlay: %w", err)
	}
	if req.NetworkID == "" {
		req.NetworkID = status.NetworkID
	}
	list, err := c.Overlay.Nodes(ctx, 0, 0)
	if err != nil {
		return "", fmt.Errorf("list the members: %w", err)
	}
	servers, err := find(list.Nodes, req.NetworkID)
	if err != nil {
		return "", err
	}
	if servers, err = c.proven(ctx, servers, req.NetworkID); err != nil {
		return "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	grant, by, err := c.ask(ctx, servers, GrantRequest{PublicKey: public, TTLSeconds: req.TTLSeconds})
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	return render(file{networkID: req.NetworkID, uid: by.claim.UID, grant: grant, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})})
}

// ask tries the servers one after the other. A refusal is final, an
// unreachable server is not. It returns who answered too.
func (c Client) ask(ctx context.Context, servers []server, req GrantRequest) (Grant, server, error) {
	var last error
	for _, s := range servers {
		req.UID = s.claim.UID
		g, err := c.askOne(ctx, s, req)
		if err == nil {
			return g, s, nil
		}
		var refused *api.Error
		if errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
			return Grant{}, s, refused
		}
		last = fmt.Errorf("server %s: %w", s.Name, err)
		if ctx.Err() != nil {
			break
		}
	}
	return Grant{}, server{}, noAnswer(last)
}

func noAnswer(err error) error {
	return &api.Error{
		Message: "the cluster's server does not answer: " + err.Error(),
		Hint:    "see `kairos status` for its path, and `journalctl -u kairos-agent` there",
		Status:  http.StatusBadGateway,
	}
}

func (c Client) askOne(ctx context.Context, s server, req GrantRequest) (g Grant, err error) {
	if s.Self {
		if c.Local == nil {
			return g, errors.New("it is this machine, whose agent does not answer here")
		}
		return c.Local(ctx, req)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return g, fmt.Errorf("encode the request: %w", err)
	}
	answer, err := c.Peers.Post(ctx, s.ID, Path, body)
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(answer, &g); err != nil {
		return g, fmt.Errorf("decode the answer: %w", err)
	}
	if sum := sha256.Sum256(g.CA); hex.EncodeToString(sum[:]) != s.claim.CA {
		return Grant{}, errors.New("it answered with another authority than it publishes")
	}
	return g, nil
}

func unknownNetwork(known map[string]bool, networkID string) error {
	e := &api.Error{
		Message: fmt.Sprintf("no node of network_id %q is known here", networkID),
		Hint:    "check that the machines run with the same token and are connected: `kairos status`",
		Status:  http.StatusNotFound,
	}
	if len(known) > 0 {
		var names []string
		for n := range known {
			names = append(names, strconv.Quote(n))
		}
		slices.Sort(names)
		e.Hint = "use --network-id with one of " + strings.Join(names, ", ")
	}
	return e
}

// file is what a kubeconfig is rendered from.
type file struct {
	networkID string
	uid       string // of the cluster
	grant     Grant
	key       []byte
}

// uidDigits of a cluster's UID tell clusters apart that nobody named.
const uidDigits = 8

// names of cluster and context, and of the user. Those of two clusters differ, so
// that their files can be merged.
func (f file) names() (cluster, user string) {
	cluster = f.networkID
	if cluster == agentapi.DefaultNetworkID {
		cluster += "-" + f.uid[:min(len(f.uid), uidDigits)]
	}
	return cluster, "admin@" + cluster
}

// fileFormat takes the name of cluster and context, that of the user, server, CA,
// certificate and key. Every value is quoted by strconv.Quote or base64: both are
// valid in YAML's double quotes. A template would keep the linker from leaving out
// methods that nothing calls, in every program that can do this.
const fileFormat = `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[3]s
    certificate-authority-data: %[4]s
users:
- name: %[2]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[2]s
current-context: %[1]s
preferences: {}
`

func render(f file) (string, error) {
	if !strings.HasPrefix(f.grant.Server, "https://") || len(f.grant.CA) == 0 || len(f.grant.Certificate) == 0 {
		return "", errors.New("the server's answer is incomplete")
	}
	b64 := base64.StdEncoding.EncodeToString
	cluster, user := f.names()
	return fmt.Sprintf(fileFormat, strconv.Quote(cluster), strconv.Quote(user), strconv.Quote(f.grant.Server),
		b64(f.grant.CA), b64(f.grant.Certificate), b64(f.key)), nil
}

// Handler answers POST with a Request by an Answer: for the local control
// sockets of bridge and agent, which check who connects.
func (c Client) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			api.WriteJSON(w, http.StatusMethodNotAllowed, &api.Error{Message: "use POST"})
			return
		}
		var req Request
		if err := json.NewDecoder(io.LimitReader(r.Body, maxRequest)).Decode(&req); err != nil {
			api.WriteJSON(w, http.StatusBadRequest, &api.Error{Message: "decode the request: " + err.Error()})
			return
		}
		text, err := c.Fetch(r.Context(), req)
		if err != nil {
			api.WriteError(w, err)
			return
		}
		api.WriteJSON(w, http.StatusOK, Answer{Kubeconfig: text})
	})
}
