package k3s

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/identity"
)

// DefaultDataDir is k3s' own directory, inside the container as outside.
const DefaultDataDir = "/var/lib/rancher/k3s"

// maxFile bounds the files that are read back, in bytes.
const maxFile = 1 << 20

// Files knows k3s' data directory: k3s' own files, and the agent's beside them
// in the subdirectory "kairos". The zero value is DefaultDataDir. What the
// agent writes there has mode 0600 and survives a power cut once written.
type Files struct{ Dir string }

func (f Files) dir() string {
	if f.Dir == "" {
		return DefaultDataDir
	}
	return f.Dir
}

// joinName is the file beside the join token.
const joinName = "join.json"

func (f Files) own(name string) string { return filepath.Join(f.dir(), "kairos", name) }

// ServerToken is the file with the secret that servers join with.
func (f Files) ServerToken() string { return f.own("server-token") }

// AgentToken is the file with the secret that workers join with, on the server.
func (f Files) AgentToken() string { return f.own("agent-token") }

// JoinToken is the file with the K10 token that this worker joins with.
func (f Files) JoinToken() string { return f.own("join-token") }

// ServerCA is the CA of the API server's certificate.
func (f Files) ServerCA() string { return filepath.Join(f.dir(), "server", "tls", "server-ca.crt") }

// Manifests is the directory from which k3s applies manifests.
func (f Files) Manifests() string { return filepath.Join(f.dir(), "server", "manifests") }

// ClientCA returns certificate and key of the CA that signs the API's clients.
func (f Files) ClientCA() (cert, key string) {
	d := filepath.Join(f.dir(), "server", "tls")
	return filepath.Join(d, "client-ca.crt"), filepath.Join(d, "client-ca.key")
}

// Marker says whose data the directory holds.
type Marker struct {
	UID     string        `json:"uid"`
	Epoch   uint64        `json:"epoch"`
	Role    store.Role    `json:"role"`
	Servers []identity.ID `json:"servers,omitempty"`
}

// WriteMarker makes the marker durable.
func (f Files) WriteMarker(m Marker) error {
	return f.writeJSON(f.own("cluster.json"), m)
}

// ReadMarker returns the marker; found is false only when there is none.
func (f Files) ReadMarker() (m Marker, found bool, err error) {
	found, err = readJSON(f.own("cluster.json"), &m)
	return m, found, err
}

// HasDatastore reports whether a server has left data here (SQLite or etcd).
func (f Files) HasDatastore() (bool, error) {
	for _, p := range []string{"state.db", filepath.Join("etcd", "member")} {
		_, err := os.Stat(filepath.Join(f.dir(), "server", "db", p))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("look for the datastore: %w", err)
		}
	}
	return false, nil
}

// EnsureTokens makes the server's two secrets where they do not exist yet.
func (f Files) EnsureTokens() error {
	for _, path := range []string{f.ServerToken(), f.AgentToken()} {
		_, err := os.Stat(path)
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for a token: %w", err)
		}
		var secret [32]byte
		if _, err := rand.Read(secret[:]); err != nil {
			return fmt.Errorf("make a token: %w", err)
		}
		if err := f.write(path, []byte(hex.EncodeToString(secret[:])+"\n")); err != nil {
			return fmt.Errorf("write a token: %w", err)
		}
	}
	return nil
}

// Join is what a worker needs to join: Token is secret.
type Join struct {
	UID    string
	CA     Authority  // of the server
	Token  string     // K10<hash of CA>::node:<secret>; ReadJoin leaves it empty
	Server netip.Addr // overlay address of the server that gave it
}

// String implements fmt.Stringer without the token.
func (j Join) String() string { return "join information of cluster " + j.UID }

// GoString implements fmt.GoStringer without the token.
func (j Join) GoString() string { return j.String() }

// JoinInfo makes the join information of this server's cluster.
func (f Files) JoinInfo(uid string) (Join, error) {
	secret, err := readSmall(f.AgentToken())
	if err != nil {
		return Join{}, fmt.Errorf("read the agent token: %w", err)
	}
	ca, err := f.Authority()
	if err != nil {
		return Join{}, err
	}
	return Join{UID: uid, CA: ca, Token: "K10" + ca.Hash() + "::node:" + strings.TrimSpace(string(secret))}, nil
}

// Authority returns the server's CA. While k3s has not made it yet, the error is
// fs.ErrNotExist.
func (f Files) Authority() (Authority, error) {
	file, err := readSmall(f.ServerCA())
	if err != nil {
		return Authority{}, fmt.Errorf("read the server's CA: %w", err)
	}
	ca, err := ParseAuthority(file)
	if err != nil {
		return Authority{}, fmt.Errorf("read the server's CA in %s: %w", f.ServerCA(), err)
	}
	return ca, nil
}

// CAKey returns the SHA-256 of the public key of the root of the server's CA: it stays
// when the CA is signed anew. While k3s has not made it yet, the error is fs.ErrNotExist.
func (f Files) CAKey() (sum [sha256.Size]byte, err error) {
	ca, err := f.Authority()
	if err != nil {
		return sum, err
	}
	root := ca.root()
	if root == nil {
		return sum, fmt.Errorf("read the server's CA in %s: its certificates lead to no root", f.ServerCA())
	}
	return sha256.Sum256(root.RawSubjectPublicKeyInfo), nil
}

// joinFile is what is kept beside the join token; nothing in it is secret.
type joinFile struct {
	UID    string     `json:"uid"`
	CA     Authority  `json:"ca"`
	Server netip.Addr `json:"server"`
}

// SaveJoin keeps join information; the token's file is written first and ReadJoin
// compares the two, so that a crash between them leaves nothing wrong. The CA that came
// first is trusted, and after it only what it vouches for: ErrOtherAuthority.
func (f Files) SaveJoin(j Join) error {
	if j.CA.Hash() == "" || !strings.HasPrefix(j.Token, "K10"+j.CA.Hash()+"::node:") {
		return errors.New("save join information: the token does not carry the hash of the cluster's CA")
	}
	old, err := f.readJoin()
	if err != nil {
		return fmt.Errorf("save join information: %w", err)
	}
	if old.UID == j.UID && !old.CA.VouchesFor(j.CA) {
		return fmt.Errorf("save join information: %w", ErrOtherAuthority)
	}
	raw, err := json.Marshal(joinFile{UID: j.UID, CA: j.CA, Server: j.Server})
	if err != nil {
		return fmt.Errorf("encode join information: %w", err)
	}
	if err := f.write(f.JoinToken(), []byte(j.Token+"\n")); err != nil {
		return fmt.Errorf("write the join token: %w", err)
	}
	return f.write(f.own(joinName), append(raw, '\n'))
}

// ReadJoin returns the join information that is at hand, without its token;
// the zero Join when there is none.
func (f Files) ReadJoin() (Join, error) {
	j, err := f.readJoin()
	if err != nil || j.UID == "" {
		return Join{}, err
	}
	token, err := readSmall(f.JoinToken())
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !strings.HasPrefix(string(token), "K10"+j.CA.Hash()+"::")) {
		return Join{}, nil // interrupted between the two files: to be fetched again
	}
	return j, err
}

// readJoin reads the file beside the token.
func (f Files) readJoin() (Join, error) {
	var j joinFile
	found, err := readJSON(f.own(joinName), &j)
	if err != nil || !found || j.CA.Hash() == "" { // an earlier version kept the hash only
		return Join{}, err
	}
	return Join{UID: j.UID, CA: j.CA, Server: j.Server}, nil
}

// HasTokens reports whether the server's secrets are there.
func (f Files) HasTokens() error {
	for _, path := range []string{f.ServerToken(), f.AgentToken()} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("look for a token: %w", err)
		}
	}
	return nil
}

func (f Files) write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return store.WriteFile(store.OS{}, path, data)
}

// writeJSON is the other end of readJSON.
func (f Files) writeJSON(path string, what any) error {
	raw, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return f.write(path, append(raw, '\n'))
}

// WriteManifest writes a manifest for k3s to apply, when it differs.
func (f Files) WriteManifest(name string, data []byte) error {
	path := filepath.Join(f.Manifests(), name)
	if old, err := readSmall(path); err == nil && string(old) == string(data) {
		return nil
	}
	return f.write(path, data)
}

func readJSON(path string, into any) (found bool, err error) {
	raw, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, fmt.Errorf("decode %s: %w", path, err)
	}
	return true, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile))
	return raw, errors.Join(err, f.Close())
}
