package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// maxAnswer bounds what a client reads of one answer, in bytes. The largest
// honest one is the list of records of a full member table.
const maxAnswer = 64 << 20

// Errors of a client that could not ask at all. An answer that is not 2xx is an *Error.
var (
	// ErrNotRunning: nothing listens on the socket.
	ErrNotRunning = errors.New("nothing is listening there")
	// ErrForbidden: the socket belongs to another user.
	ErrForbidden = errors.New("permission denied")
)

// Client speaks to a running overlay (or agent). It is safe for concurrent use
// and keeps no state besides idle connections. Every method's deadline is its context's.
type Client struct {
	http *http.Client
	base string // scheme and host of every request
	peer string // what error messages call the other side
}

// NewClient returns a client of the unix socket at path, or of an abstract one:
// see Abstract. Nothing is dialled before the first call.
func NewClient(path string) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialUnix(ctx, path)
		},
		MaxIdleConns:    4,
		IdleConnTimeout: 30 * time.Second,
	}
	return &Client{http: &http.Client{Transport: transport}, base: "http://localhost", peer: path}
}

// NewTCPClient returns a client of the read-only API at addr, "127.0.0.1:8080".
// Control calls are refused there.
func NewTCPClient(addr string) *Client {
	transport := &http.Transport{Proxy: nil, MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second}
	return &Client{http: &http.Client{Transport: transport}, base: "http://" + addr, peer: addr}
}

// CloseIdle closes connections that no call uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Status returns the state of the member behind the socket.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/api/v1/status")
}

// Nodes returns all members, this one included. With after > 0 and wait > 0 the
// answer is held back until the revision is above after, at most for wait
// (the server caps it at one minute); the list is returned either way.
func (c *Client) Nodes(ctx context.Context, after uint64, wait time.Duration) (NodeList, error) {
	path := "/api/v1/nodes"
	if wait > 0 {
		q := url.Values{"after": {strconv.FormatUint(after, 10)}, "wait": {wait.String()}}
		path += "?" + q.Encode()
	}
	return get[NodeList](ctx, c, path)
}

// Peers returns the connected peers with their counters.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return get[[]Peer](ctx, c, "/api/v1/peers")
}

// Records returns the signed records behind Nodes, opened.
func (c *Client) Records(ctx context.Context) ([]Record, error) {
	return get[[]Record](ctx, c, "/api/v1/records")
}

// Cluster returns the cluster of this member's network_id; an *Error with
// Status 404 says why there is none yet.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	return get[Cluster](ctx, c, "/api/v1/cluster")
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	err := c.Call(ctx, Exchange{Method: http.MethodGet, Path: path, Out: &v})
	return v, err
}

// SetAnnotations replaces all annotations of this member's record.
func (c *Client) SetAnnotations(ctx context.Context, annotations map[string]string) error {
	if annotations == nil {
		annotations = map[string]string{}
	}
	return c.Call(ctx, Exchange{Method: http.MethodPut, Path: "/control/v1/annotations", In: annotations})
}

// SetRoutes replaces what this member announces and accepts besides its own addresses.
func (c *Client) SetRoutes(ctx context.Context, routes Routes) error {
	return c.Call(ctx, Exchange{Method: http.MethodPut, Path: "/control/v1/routes", In: routes})
}

// Pin fixes this member's IPv4 address for good: it wins every later conflict
// against members that are not pinned.
func (c *Client) Pin(ctx context.Context) error {
	return c.Call(ctx, Exchange{Method: http.MethodPost, Path: "/control/v1/pin", In: struct{}{}})
}

// Sign signs message with the node's identity key under the given context,
// which must start with "agent-": see identity.Verify.
func (c *Client) Sign(ctx context.Context, context string, message []byte) ([]byte, error) {
	var out SignAnswer
	err := c.Call(ctx, Exchange{Method: http.MethodPost, Path: "/control/v1/sign", In: SignRequest{Context: context, Message: message}, Out: &out})
	return out.Signature, err
}

// Certificate returns a certificate chain for publicKey (PKIX, DER): the leaf
// and the self-signed certificate of the identity key that signed it, both DER.
func (c *Client) Certificate(ctx context.Context, publicKey []byte) ([][]byte, error) {
	var out CertificateAnswer
	err := c.Call(ctx, Exchange{Method: http.MethodPost, Path: "/control/v1/certificate", In: CertificateRequest{PublicKey: publicKey}, Out: &out})
	return out.Chain, err
}

// PutCluster sets what GET /api/v1/cluster answers.
func (c *Client) PutCluster(ctx context.Context, cluster Cluster) error {
	return c.Call(ctx, Exchange{Method: http.MethodPut, Path: "/control/v1/documents/cluster", In: cluster})
}

// Exchange is one request and what is made of the answer.
type Exchange struct {
	Method, Path string
	In           any // sent as JSON; nil: no body
	Out          any // a pointer to decode the answer into; nil: it is dropped
}

// Call does one exchange. An answer that is not 2xx becomes an *Error with its
// HTTP status. It is exported for handlers that others put beside the
// overlay's own.
func (c *Client) Call(ctx context.Context, x Exchange) error {
	req, err := c.request(ctx, x)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.peer, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("read the answer of %s: more than %d bytes", c.peer, maxAnswer)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return answerError(resp, body)
	}
	if x.Out == nil {
		return nil
	}
	if err := json.Unmarshal(body, x.Out); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", c.peer, err)
	}
	return nil
}

func (c *Client) request(ctx context.Context, x Exchange) (*http.Request, error) {
	var body io.Reader = http.NoBody
	if x.In != nil {
		b, err := json.Marshal(x.In)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, x.Method, c.base+x.Path, body)
	if err != nil {
		return nil, fmt.Errorf("build the request: %w", err)
	}
	if x.In != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// explain turns a failed dial into one of the sentinels; the original stays in the chain.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("ask %s: %w", c.peer, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("connect to %s: %w", c.peer, ErrForbidden)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, connRefused):
		return fmt.Errorf("connect to %s: %w", c.peer, ErrNotRunning)
	}
	return fmt.Errorf("ask %s: %w", c.peer, err)
}

func answerError(resp *http.Response, body []byte) error {
	e := &Error{}
	if json.Unmarshal(body, e) != nil || e.Message == "" {
		e = &Error{Message: "the answer was " + resp.Status}
	}
	e.Status = resp.StatusCode
	return e
}
