package k3s

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// apiAddr is where these tests' API server listens: loopback, on k3s' own port.
var apiAddr = netip.MustParseAddr("127.86.67.1")

// authority is a CA that signs one certificate for server and client alike.
type authority struct {
	certPEM, keyPEM, caPEM []byte
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, IPAddresses: []net.IP{apiAddr.AsSlice()},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return authority{block("CERTIFICATE", leafDER), block("PRIVATE KEY", keyDER), block("CERTIFICATE", caDER)}
}

// write leaves the files that k3s of this role leaves.
func (a authority) write(t *testing.T, f Files, r Role) {
	t.Helper()
	dir, name := filepath.Join(f.Dir, "agent"), "client-kubelet"
	ca := filepath.Join(dir, "server-ca.crt")
	if r == Server {
		dir, name, ca = filepath.Join(f.Dir, "server", "tls"), "client-admin", f.ServerCA()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, raw := range map[string][]byte{ca: a.caPEM, filepath.Join(dir, name+".crt"): a.certPEM, filepath.Join(dir, name+".key"): a.keyPEM} {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serveAPI is an API server that knows who its clients are.
func serveAPI(t *testing.T, a authority, h http.Handler) {
	t.Helper()
	cert, err := tls.X509KeyPair(a.certPEM, a.keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.caPEM)
	l, err := net.Listen("tcp", netip.AddrPortFrom(apiAddr, APIPort).String())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = l
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
}

func TestProbeAsksTheAPI(t *testing.T) {
	a := newAuthority(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("GET /api/v1/nodes/n1", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"spec":{"podCIDR":"10.42.3.0/24"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`))
	})
	serveAPI(t, a, mux)
	for _, r := range []Role{Server, Agent} {
		t.Run(string(r), func(t *testing.T) {
			p := Probe{Role: r, Server: apiAddr, Files: Files{Dir: t.TempDir()}}
			if _, err := p.Node(t.Context(), "n1"); !errors.Is(err, ErrNotReady) {
				t.Errorf("before k3s made its certificates: %v", err)
			}
			a.write(t, p.Files, r)
			n, err := p.Node(t.Context(), "n1")
			if err != nil || !n.Ready || n.PodCIDR.String() != "10.42.3.0/24" {
				t.Errorf("got %+v, %v", n, err)
			}
			if _, err := p.Node(t.Context(), "n2"); !errors.Is(err, ErrNoNode) {
				t.Errorf("a node that is not there: %v", err)
			}
			if r == Server {
				if err := p.Ready(t.Context()); err != nil {
					t.Errorf("ready: %v", err)
				}
			}
			newAuthority(t).write(t, p.Files, r)
			if _, err := p.Node(t.Context(), "n1"); !errors.Is(err, ErrNotReady) {
				t.Errorf("a server of another CA: %v", err)
			}
		})
	}
}

// Do is the way for everything else: any method, and any status is an answer.
func TestProbeDo(t *testing.T) {
	a := newAuthority(t)
	serveAPI(t, a, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL, r.Header.Get("Content-Type"), body)
	}))
	p := Probe{Role: Server, Server: apiAddr, Files: Files{Dir: t.TempDir()}}
	if _, _, err := p.Do(t.Context(), http.MethodGet, "/", nil); !errors.Is(err, ErrNotReady) {
		t.Errorf("before k3s made its certificates: %v", err)
	}
	a.write(t, p.Files, Server)
	for method, want := range map[string]string{
		http.MethodPost:  "POST /a/b?c=d application/json {}",
		http.MethodPatch: "PATCH /a/b?c=d application/merge-patch+json {}",
	} {
		status, answer, err := p.Do(t.Context(), method, "/a/b?c=d", []byte("{}"))
		if err != nil || status != http.StatusConflict || string(answer) != want {
			t.Errorf("got %d %q, %v", status, answer, err)
		}
	}
}

func TestProbeReadsBrokenFiles(t *testing.T) {
	p := Probe{Role: Server, Server: apiAddr, Files: Files{Dir: t.TempDir()}}
	a := newAuthority(t)
	a.caPEM = []byte("rubbish")
	a.write(t, p.Files, Server)
	if err := p.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "no certificate in it") {
		t.Errorf("got %v", err)
	}
}

// What an answer of k3s means.
func TestGet(t *testing.T) {
	for _, tc := range []struct {
		name string
		code int
		want error
	}{
		{"well", http.StatusOK, nil},
		{"starting", http.StatusServiceUnavailable, ErrNotReady},
		{"not allowed yet", http.StatusUnauthorized, ErrNotReady},
		{"failing", http.StatusInternalServerError, ErrNotReady},
		{"not there", http.StatusNotFound, ErrNoNode},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(tc.code) }))
			defer s.Close()
			transport := &http.Transport{DisableKeepAlives: true}
			if _, err := get(t.Context(), transport, s.URL+"/healthz"); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if _, err := get(t.Context(), &http.Transport{}, "http://127.86.67.9:1/"); !errors.Is(err, ErrNotReady) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestParseNode(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		cidr     string
		ready    bool
		fail     bool
	}{
		{"new", `{"spec":{},"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "", false, false},
		{"ready", `{"spec":{"podCIDR":"10.42.3.0/24"},"status":{"conditions":[{"type":"MemoryPressure","status":"True"},{"type":"Ready","status":"True"}],"nodeInfo":{"kubeletVersion":"v1.35.8+k3s1"}}}`, "10.42.3.0/24", true, false},
		{"host bits in the range", `{"spec":{"podCIDR":"10.42.3.1/24"}}`, "10.42.3.0/24", false, false},
		{"not JSON", `<html>`, "", false, true},
		{"nonsense", `{"spec":{"podCIDR":"x"}}`, "", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, err := parseNode([]byte(tc.in))
			if (err != nil) != tc.fail || n.Ready != tc.ready {
				t.Fatalf("got %+v, %v", n, err)
			}
			if n.Ready && n.Version != "v1.35.8+k3s1" {
				t.Errorf("version %q", n.Version)
			}
			if tc.cidr != "" && n.PodCIDR != netip.MustParsePrefix(tc.cidr) {
				t.Errorf("got %s", n.PodCIDR)
			}
		})
	}
}
