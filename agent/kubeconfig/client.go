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
	"text/template"
	"time"

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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	grant, err := c.ask(ctx, servers, GrantRequest{PublicKey: public, TTLSeconds: req.TTLSeconds})
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	return render(file{networkID: req.NetworkID, grant: grant, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})})
}

// ask tries the servers one after the other. A refusal is final, an unreachable server is not.
func (c Client) ask(ctx context.Context, servers []api.Node, req GrantRequest) (Grant, error) {
	var last error
	for _, s := range servers {
		req.UID = s.Annotations[api.NoteClusterUID]
		g, err := c.askOne(ctx, s, req)
		if err == nil {
			return g, nil
		}
		var refused *api.Error
		if errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
			return Grant{}, refused
		}
		last = fmt.Errorf("server %s: %w", s.Name, err)
		if ctx.Err() != nil {
			break
		}
	}
	return Grant{}, &api.Error{
		Message: "the cluster's server does not answer: " + last.Error(),
		Hint:    "see `kairos status` for its path, and `journalctl -u kairos-agent` there",
		Status:  http.StatusBadGateway,
	}
}

func (c Client) askOne(ctx context.Context, s api.Node, req GrantRequest) (g Grant, err error) {
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
	if sum := sha256.Sum256(g.CA); hex.EncodeToString(sum[:]) != s.Annotations[api.NoteCA] {
		return Grant{}, errors.New("it answered with another authority than it publishes")
	}
	return g, nil
}

// find returns the running servers of the cluster, connected ones first.
func find(nodes []api.Node, networkID string) ([]api.Node, error) {
	known, waiting, members := map[string]bool{}, "", 0
	var servers []api.Node
	for _, n := range nodes {
		if n.Kind != api.KindNode {
			continue
		}
		known[n.NetworkID] = true
		if n.NetworkID != networkID {
			continue
		}
		members++
		a := n.Annotations
		if waiting == "" {
			waiting = a[api.NoteWaiting]
		}
		if a[api.NoteRole] == "server" && a[api.NoteServer] != "" && a[api.NoteClusterUID] != "" {
			servers = append(servers, n)
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
	slices.SortStableFunc(servers, func(a, b api.Node) int { return rank(a) - rank(b) })
	return servers, sameCluster(servers, networkID)
}

// rank orders servers: this machine itself, those that are connected, the rest.
func rank(n api.Node) int {
	switch {
	case n.Self:
		return 0
	case n.Connected:
		return 1
	}
	return 2
}

// sameCluster refuses to choose between servers of different clusters. Any
// member can say that it is the server; who writes secrets into a cluster must
// not meet that of somebody else. Those that are gone do not count next to those
// that are there, nor do others on a server itself.
func sameCluster(ranked []api.Node, networkID string) error {
	first := ranked[0]
	for _, s := range ranked[1:] {
		if rank(s) != rank(first) {
			break
		}
		if s.Annotations[api.NoteClusterUID] == first.Annotations[api.NoteClusterUID] &&
			s.Annotations[api.NoteCA] == first.Annotations[api.NoteCA] {
			continue
		}
		return &api.Error{
			Message: fmt.Sprintf("%s and %s both say that they run the cluster %q, and it is not the same one", first.Name, s.Name, networkID),
			Hint:    "find out which of the two is yours and run `sudo kairos get-kubeconfig` there; switch the other off",
			Status:  http.StatusConflict,
		}
	}
	return nil
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
	grant     Grant
	key       []byte
}

// Every value is quoted by strconv.Quote or base64: both are valid in YAML's double quotes.
var fileTemplate = template.Must(template.New("kubeconfig").Parse(`apiVersion: v1
kind: Config
clusters:
- name: {{.Name}}
  cluster:
    server: {{.Server}}
    certificate-authority-data: {{.CA}}
users:
- name: {{.User}}
  user:
    client-certificate-data: {{.Cert}}
    client-key-data: {{.Key}}
contexts:
- name: {{.Name}}
  context:
    cluster: {{.Name}}
    user: {{.User}}
current-context: {{.Name}}
preferences: {}
`))

func render(f file) (string, error) {
	if !strings.HasPrefix(f.grant.Server, "https://") || len(f.grant.CA) == 0 || len(f.grant.Certificate) == 0 {
		return "", errors.New("the server's answer is incomplete")
	}
	b64 := base64.StdEncoding.EncodeToString
	var b strings.Builder
	err := fileTemplate.Execute(&b, map[string]string{
		"Name": strconv.Quote(f.networkID), "User": strconv.Quote("kairos-" + f.networkID), "Server": strconv.Quote(f.grant.Server),
		"CA": b64(f.grant.CA), "Cert": b64(f.grant.Certificate), "Key": b64(f.key),
	})
	return b.String(), err
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
