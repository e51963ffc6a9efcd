package k3s

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"
)

// kubeletHealth is where every kubelet tells this machine that it works.
const kubeletHealth = "http://127.0.0.1:10248/healthz"

// probeTimeout bounds one question to k3s.
const probeTimeout = 5 * time.Second

// maxAnswer bounds an answer of the API, in bytes; a node object stays far below.
const maxAnswer = 4 << 20

// Probe asks k3s how it is, with the certificates that k3s itself made.
type Probe struct {
	Role   Role
	Server netip.Addr // overlay address of the API server; this node's own for a server
	Files  Files
}

// Node is what the cluster says about this node.
type Node struct {
	PodCIDR netip.Prefix // invalid until Kubernetes gave one
	Ready   bool
	Version string // of its kubelet: v1.35.8+k3s1
}

// Ready returns nil when k3s works: on a server the API answers /readyz, on a
// worker the kubelet says it is healthy (whether or not the server is reachable).
func (p Probe) Ready(ctx context.Context) error {
	if p.Role == Agent {
		_, err := get(ctx, http.DefaultTransport, kubeletHealth)
		return err
	}
	_, err := p.ask(ctx, "/readyz")
	return err
}

// Node reads this node's object. ErrNoNode: not registered yet.
func (p Probe) Node(ctx context.Context, name string) (Node, error) {
	raw, err := p.ask(ctx, "/api/v1/nodes/"+url.PathEscape(name))
	if err != nil {
		return Node{}, err
	}
	return parseNode(raw)
}

func parseNode(raw []byte) (Node, error) {
	var n struct {
		Spec struct {
			PodCIDR string `json:"podCIDR"`
		} `json:"spec"`
		Status struct {
			Conditions []struct{ Type, Status string } `json:"conditions"`
			NodeInfo   struct {
				KubeletVersion string `json:"kubeletVersion"`
			} `json:"nodeInfo"`
		} `json:"status"`
	}
	if err := json.Unmarshal(raw, &n); err != nil {
		return Node{}, fmt.Errorf("decode the node: %w", err)
	}
	out := Node{Version: n.Status.NodeInfo.KubeletVersion}
	for _, c := range n.Status.Conditions {
		out.Ready = out.Ready || (c.Type == "Ready" && c.Status == "True")
	}
	if n.Spec.PodCIDR == "" {
		return out, nil
	}
	p, err := netip.ParsePrefix(n.Spec.PodCIDR)
	if err != nil {
		return Node{}, fmt.Errorf("read the node's pod range: %w", err)
	}
	out.PodCIDR = p.Masked()
	return out, nil
}

// Do sends one request to the API server, with query and body as they are, and
// returns what came back, whatever its status. A PATCH is a merge patch. The
// error is ErrNotReady when nothing came back.
func (p Probe) Do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	t, err := p.transport()
	if err != nil {
		return 0, nil, err
	}
	defer t.CloseIdleConnections()
	target := "https://" + netip.AddrPortFrom(p.Server, APIPort).String() + path
	req, err := http.NewRequest(method, target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("ask k3s: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	return send(ctx, t, req)
}

// ask sends a GET to the API server and returns the body of a 200.
func (p Probe) ask(ctx context.Context, path string) ([]byte, error) {
	status, raw, err := p.Do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return onlyOK(status, raw, path)
}

// transport uses the administrator's certificate on a server and the kubelet's
// on a worker. Files are read each time: k3s renews them.
func (p Probe) transport() (*http.Transport, error) {
	dir := filepath.Join(p.Files.dir(), "agent")
	ca, pair := filepath.Join(dir, "server-ca.crt"), filepath.Join(dir, "client-kubelet")
	if p.Role == Server {
		dir = filepath.Join(p.Files.dir(), "server", "tls")
		ca, pair = p.Files.ServerCA(), filepath.Join(dir, "client-admin")
	}
	caPEM, err := readSmall(ca)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return nil, fmt.Errorf("read %s: no certificate in it", ca)
	}
	cert, err := tls.LoadX509KeyPair(pair+".crt", pair+".key")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{cert}},
	}, nil
}

func get(ctx context.Context, t http.RoundTripper, target string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask k3s: %w", err)
	}
	status, raw, err := send(ctx, t, req)
	if err != nil {
		return nil, err
	}
	return onlyOK(status, raw, req.URL.Path)
}

func send(ctx context.Context, t http.RoundTripper, req *http.Request) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	resp, err := (&http.Client{Transport: t}).Do(req.WithContext(ctx))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return 0, nil, fmt.Errorf("read k3s' answer: %w", err)
	}
	return resp.StatusCode, raw, nil
}

func onlyOK(status int, raw []byte, path string) ([]byte, error) {
	switch status {
	case http.StatusOK:
		return raw, nil
	case http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s", ErrNoNode, path)
	}
	return nil, fmt.Errorf("%w: %s answered %d %s", ErrNotReady, path, status, http.StatusText(status))
}
