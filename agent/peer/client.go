package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// newClient returns an HTTP client whose hosts are IDs: the address comes from
// the list of members and the certificate must be the ID's.
func (p *Peer) newClient() *http.Client {
	t := &http.Transport{
		DialTLSContext:      p.dial,
		MaxIdleConnsPerHost: 1,
		MaxIdleConns:        64,
		IdleConnTimeout:     90 * time.Second,
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// CloseIdle closes connections that no call uses.
func (p *Peer) CloseIdle() { p.client.CloseIdleConnections() }

func (p *Peer) dial(ctx context.Context, _, hostport string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	id, err := identity.ParseID(host)
	if err != nil {
		return nil, err
	}
	node, err := p.member(ctx, id)
	if err != nil {
		return nil, err
	}
	addr, ok := ipv4(node)
	if !ok {
		return nil, fmt.Errorf("dial %s: it has no overlay address", node.Name)
	}
	cert, err := p.creds.get(ctx)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: dialTimeout},
		Config: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			Certificates:       []tls.Certificate{*cert},
			NextProtos:         []string{"http/1.1"},
			ServerName:         host,
			InsecureSkipVerify: true, // no authority to ask: VerifyConnection demands this very ID
			VerifyConnection: func(cs tls.ConnectionState) error {
				got, err := verifyChain(cs.PeerCertificates)
				if err == nil && got != id {
					err = fmt.Errorf("verify the peer: %s answered instead of %s", got.Short(), id.Short())
				}
				return err
			},
		},
	}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, p.port).String())
}

func ipv4(n api.Node) (netip.Addr, bool) {
	for _, a := range n.Addresses {
		if a.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Post sends body to the agent of node to and returns the answer's body. An
// answer that is not 2xx becomes an *api.Error with its status.
func (p *Peer) Post(ctx context.Context, to identity.ID, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	target := "https://" + to.String() + ":" + fmt.Sprint(p.port) + path
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("build a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent of %s: %w", to.Short(), withoutURL(err))
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", to.Short(), err)
	}
	if len(answer) > maxBody {
		return nil, fmt.Errorf("read the answer of %s: more than %d bytes", to.Short(), maxBody)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		e := &api.Error{}
		if json.Unmarshal(answer, e) != nil || e.Message == "" {
			e.Message = "the answer was " + strings.ToLower(resp.Status)
		}
		e.Status = resp.StatusCode
		return nil, e
	}
	return answer, nil
}

// withoutURL drops net/http's repetition of method and URL.
func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
