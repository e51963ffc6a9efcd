package kubeconfig

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

const uid = "0123456789abcdef"

var laptop = identity.ID{1, 2, 3}

// newIssuer makes a server's certificate authority on disk.
func newIssuer(t *testing.T, caLife time.Duration) Issuer {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "k3s-client-ca"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(caLife)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	return Issuer{UID: uid, Endpoint: "https://10.77.0.1:6443", CACert: write("ca.crt", "CERTIFICATE", der),
		CAKey: write("ca.key", "EC PRIVATE KEY", keyDER), ServerCA: write("server.crt", "CERTIFICATE", der)}
}

func publicKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestGrant(t *testing.T) {
	i := newIssuer(t, 24*365*time.Hour)
	g, err := i.Grant(Asker{ID: laptop, Name: "laptop-" + laptop.Short()}, GrantRequest{UID: uid, PublicKey: publicKey(t), TTLSeconds: 3600})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(g.Certificate)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject.CommonName != "kairos:laptop-"+laptop.Short() || c.Subject.Organization[0] != "kairos:admins" || c.IsCA {
		t.Errorf("subject %v, CA %v", c.Subject, c.IsCA)
	}
	if d := time.Until(c.NotAfter); d > time.Hour || d < 59*time.Minute {
		t.Errorf("lives for %s", d)
	}
	ca, err := os.ReadFile(i.CACert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("the API server would refuse it: %v", err)
	}
}

// TestNobodyActsUnderAnothersName: a member chooses its name itself.
func TestNobodyActsUnderAnothersName(t *testing.T) {
	thief := identity.ID{9}
	for _, name := range []string{"laptop-" + laptop.Short(), "admin", "", "x" + thief.Short()} {
		if got := (Asker{ID: thief, Name: name}).user(); got != "kairos:"+thief.String() {
			t.Errorf("%q acts as %s", name, got)
		}
	}
}

func TestGrantNeverOutlivesTheAuthority(t *testing.T) {
	i := newIssuer(t, time.Hour)
	g, err := i.Grant(Asker{Name: "x"}, GrantRequest{UID: uid, PublicKey: publicKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(g.Certificate)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil || time.Until(c.NotAfter) > time.Hour {
		t.Errorf("until %s, %v", c.NotAfter, err)
	}
}

func TestGrantRefuses(t *testing.T) {
	i := newIssuer(t, 24*time.Hour)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	bridge := Asker{Name: "b"}
	for _, tc := range []struct {
		name   string
		who    Asker
		req    GrantRequest
		status int
	}{
		{"another cluster", bridge, GrantRequest{UID: "x", PublicKey: publicKey(t)}, http.StatusConflict},
		{"too long", bridge, GrantRequest{UID: uid, PublicKey: publicKey(t), TTLSeconds: int64(MaxTTL/time.Second) + 1}, http.StatusBadRequest},
		{"too short", bridge, GrantRequest{UID: uid, PublicKey: publicKey(t), TTLSeconds: 1}, http.StatusBadRequest},
		{"negative", bridge, GrantRequest{UID: uid, PublicKey: publicKey(t), TTLSeconds: -1}, http.StatusBadRequest},
		{"no key", bridge, GrantRequest{UID: uid}, http.StatusBadRequest},
		{"another kind of key", bridge, GrantRequest{UID: uid, PublicKey: edDER}, http.StatusBadRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := i.Grant(tc.who, tc.req)
			var e *api.Error
			if !errors.As(err, &e) || e.Status != tc.status {
				t.Errorf("got %v, want status %d", err, tc.status)
			}
		})
	}
}

// fakeMesh is an overlay and the way to the servers' agents.
type fakeMesh struct {
	nodes  []api.Node
	issuer *Issuer
	down   map[identity.ID]bool
	proofs map[identity.ID]agentapi.Proven // where not the default
}

func (f *fakeMesh) Status(context.Context) (api.Status, error) {
	return api.Status{Name: "laptop-abcdef", NetworkID: "home"}, nil
}

func (f *fakeMesh) Nodes(context.Context, uint64, time.Duration) (api.NodeList, error) {
	return api.NodeList{Nodes: f.nodes}, nil
}

func (f *fakeMesh) Post(_ context.Context, to identity.ID, path string, body []byte) ([]byte, error) {
	if f.down[to] {
		return nil, errors.New("connection refused")
	}
	if path == ProofPath {
		return f.proof(to)
	}
	var req GrantRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, err
	}
	g, err := f.issuer.Grant(Asker{ID: laptop, Name: "laptop-abcdef"}, req)
	if err != nil {
		return nil, err
	}
	return json.Marshal(g)
}

// proof is what the member shows: by default of the cluster that it claims, which
// names all members.
func (f *fakeMesh) proof(of identity.ID) ([]byte, error) {
	p, ok := f.proofs[of]
	for _, n := range f.nodes {
		if !ok {
			p.Servers = append(p.Servers, n.ID)
			p.Servers = append(p.Servers, n.ID)
		}
		if !ok && n.ID == of {
			p.UID = n.Annotations[api.NoteClusterUID]
		}
	}
	return json.Marshal(p)
}

func (f *fakeMesh) client() Client {
	return Client{Overlay: f, Peers: f, Verify: func(_ string, raw []byte) (p agentapi.Proven, err error) {
		err = json.Unmarshal(raw, &p)
		if err == nil && p.UID == forged {
			err = errors.New("forged")
		}
		return p, err
	}}
}

// forged is a cluster of which every proof is invalid.
const forged = "forged"

func node(id byte, networkID string, notes map[string]string) api.Node {
	return api.Node{ID: identity.ID{id}, Name: "n", Kind: api.KindNode, NetworkID: networkID, Annotations: notes, Connected: true}
}

// server is what the issuer's node publishes.
func (i Issuer) server(t *testing.T) map[string]string {
	t.Helper()
	ca, err := os.ReadFile(i.ServerCA)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(ca)
	return map[string]string{api.NoteRole: "server", api.NoteServer: "10.77.0.1:6443", api.NoteClusterUID: uid, api.NoteCA: hex.EncodeToString(sum[:])}
}

func with(notes map[string]string, key, value string) map[string]string {
	notes = maps.Clone(notes)
	notes[key] = value
	return notes
}

func TestFetch(t *testing.T) {
	i := newIssuer(t, 24*365*time.Hour)
	server := i.server(t)
	f := &fakeMesh{issuer: &i, down: map[identity.ID]bool{{1}: true}, nodes: []api.Node{
		node(1, "home", server), node(2, "home", server), node(3, "home", nil), node(4, "other", server)}}
	text, err := f.client().Fetch(t.Context(), Request{})
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) []byte {
		m := regexp.MustCompile(name + `: (\S+)`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in it", name)
		}
		b, err := base64.StdEncoding.DecodeString(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := tls.X509KeyPair(field("client-certificate-data"), field("client-key-data")); err != nil {
		t.Errorf("certificate and key do not match: %v", err)
	}
	if !strings.Contains(text, `server: "https://10.77.0.1:6443"`) || !strings.Contains(text, `current-context: "home"`) {
		t.Errorf("server or context is wrong")
	}
}

func TestFetchExplains(t *testing.T) {
	i := newIssuer(t, 24*time.Hour)
	server := i.server(t)
	away := node(1, "home", with(server, api.NoteCA, "other"))
	away.Connected = false
	waiting := map[string]string{api.NoteWaiting: "waiting for two more machines"}
	for _, tc := range []struct {
		name       string
		nodes      []api.Node
		req        Request
		text, hint string
	}{
		{"nobody", nil, Request{}, `no node of network_id "home"`, "same token"},
		{"another network_id", []api.Node{node(1, "b", server), node(2, "a", nil)}, Request{}, `no node of network_id "home"`, `"a", "b"`},
		{"no cluster yet", []api.Node{node(1, "home", waiting)}, Request{}, "waiting for two more machines", "kairos status"},
		{"server away", []api.Node{node(9, "home", server)}, Request{}, "does not answer", "journalctl"},
		{"two clusters", []api.Node{node(1, "home", with(server, api.NoteClusterUID, "other")), node(2, "home", server)}, Request{}, "not the same one", "switch the other off"},
		{"two authorities", []api.Node{node(1, "home", server), node(2, "home", with(server, api.NoteCA, "other"))}, Request{}, "not the same one", "switch the other off"},
		{"another authority than published", []api.Node{away, node(2, "home", with(server, api.NoteCA, "other"))}, Request{}, "another authority", "journalctl"},
		{"too long", []api.Node{node(1, "home", server)}, Request{TTLSeconds: 1 << 40}, "lives from", "--ttl"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeMesh{issuer: &i, nodes: tc.nodes, down: map[identity.ID]bool{{9}: true}}
			_, err := f.client().Fetch(t.Context(), tc.req)
			var e *api.Error
			if !errors.As(err, &e) || !strings.Contains(e.Message, tc.text) || !strings.Contains(e.Hint, tc.hint) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Every member can say that it is the server, also of the very same cluster. Only
// whom the agreement named is asked, and nobody else stands in its way.
func TestFetchAsksWhoWasNamed(t *testing.T) {
	i := newIssuer(t, 24*time.Hour)
	server := i.server(t)
	named := agentapi.Proven{UID: uid, Servers: []identity.ID{{2}}}
	for _, tc := range []struct {
		name  string
		liar  map[string]string
		proof agentapi.Proven
	}{
		{"the same cluster, its own authority", with(server, api.NoteCA, "other"), named},
		{"another cluster, with the proof of this one", with(server, api.NoteClusterUID, "other"), named},
		{"another cluster, with a bad proof", with(server, api.NoteClusterUID, "other"), agentapi.Proven{UID: forged, Servers: []identity.ID{{1}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeMesh{issuer: &i, nodes: []api.Node{node(1, "home", tc.liar), node(2, "home", server)},
				proofs: map[identity.ID]agentapi.Proven{{1}: tc.proof, {2}: named}}
			if _, err := f.client().Fetch(t.Context(), Request{}); err != nil {
				t.Errorf("with a liar beside the server: %v", err)
			}
			f.down = map[identity.ID]bool{{2}: true}
			var e *api.Error
			if _, err := f.client().Fetch(t.Context(), Request{}); !errors.As(err, &e) || !strings.Contains(e.Message, "does not answer") {
				t.Errorf("with the liar alone: %v", err)
			}
		})
	}
}

// Files are merged by name (kubectl config view --flatten): two clusters must not be
// one afterwards, also where nobody named them.
func TestTwoClustersMerge(t *testing.T) {
	names := func(networkID, uid string) []string {
		i := newIssuer(t, 24*time.Hour)
		i.UID = uid
		f := &fakeMesh{issuer: &i, nodes: []api.Node{node(1, networkID, with(i.server(t), api.NoteClusterUID, uid))}}
		text, err := f.client().Fetch(t.Context(), Request{NetworkID: networkID})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range regexp.MustCompile(`(?m)^- name: "(.*)"$`).FindAllStringSubmatch(text, -1) {
			out = append(out, m[1])
		}
		if len(out) != 3 || !strings.Contains(text, `current-context: "`+out[2]+`"`) {
			t.Fatalf("cluster, user and context are %q", out)
		}
		return out
	}
	one, two, home := names("kairos", "0123456789abcdef"), names("kairos", "fedcba9876543210"), names("home", "0123456789abcdef")
	for i := range one {
		if one[i] == two[i] || one[i] == home[i] {
			t.Errorf("two clusters are both %q", one[i])
		}
	}
	if want := []string{"kairos-01234567", "admin@kairos-01234567", "kairos-01234567"}; !slices.Equal(one, want) {
		t.Errorf("got %q, want %q", one, want)
	}
	if want := []string{"home", "admin@home", "home"}; !slices.Equal(home, want) {
		t.Errorf("got %q, want %q", home, want)
	}
}

func TestHandler(t *testing.T) {
	i := newIssuer(t, 24*365*time.Hour)
	f := &fakeMesh{issuer: &i, nodes: []api.Node{node(1, "home", i.server(t))}}
	h := f.client().Handler()
	for _, tc := range []struct {
		method, body string
		status       int
	}{
		{http.MethodPost, `{}`, http.StatusOK},
		{http.MethodPost, `{"network_id":"x"}`, http.StatusNotFound},
		{http.MethodPost, `nonsense`, http.StatusBadRequest},
		{http.MethodGet, ``, http.StatusMethodNotAllowed},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tc.method, "/control/v1/kubeconfig", strings.NewReader(tc.body)))
		var out struct{ Kubeconfig, Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != tc.status || (w.Code == http.StatusOK) != (out.Kubeconfig != "") {
			t.Errorf("%s %q: %d, %v", tc.method, tc.body, w.Code, err)
		}
	}
}

func TestRenderQuotes(t *testing.T) {
	text, err := render(file{networkID: "a\"\nb: c", grant: Grant{Server: "https://x", CA: []byte("x"), Certificate: []byte("x")}})
	if err != nil || strings.Contains(text, "\nb: c") {
		t.Errorf("a name broke out of its quotes: %q, %v", text, err)
	}
	if _, err := render(file{grant: Grant{Server: "http://x"}}); err == nil {
		t.Error("an incomplete answer was rendered")
	}
}
