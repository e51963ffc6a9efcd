package overlay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/keepjson"
	"github.com/kairos-io/kairos/overlay/wire"
)

// stateVersion is the version of state.json and control.json. A new field does not change
// it, because programs that do not know the field keep it: see package keepjson. Another
// number says that what was there means something else, and is refused.
const stateVersion = 1

// maxStateFile bounds what is read of a state file, in bytes.
const maxStateFile = 4 << 20

// errState is wrapped by whatever is wrong with a state file that is there.
var errState = errors.New("not a state file of this version")

// state is what must outlive the process, in StateDir/state.json.
type state struct {
	Version     int          `json:"version"`
	NetID       string       `json:"net_id,omitempty"` // hex of token.Keys.NetID: public, for the network's life
	Network     netip.Prefix `json:"network"`          // the range the claim was made in
	Attempt     uint32       `json:"attempt"`          // which choice of address is in force
	Pinned      bool         `json:"pinned"`           // the address is fixed, and the name with it
	Name        string       `json:"name,omitempty"`   // the member's name when that was done
	Incarnation uint32       `json:"starts"`           // how often the daemon started: records of a later start win
	Seen        []seenMember `json:"seen"`             // where members were last reached
	// Prefixes are those that were believed last, and of whom. It is kept over a
	// reboot too, which ends this machine's pods and not those of others.
	Prefixes []keptPrefix `json:"prefixes,omitempty"`

	unknown keepjson.Unknown
}

// keptPrefix is a prefix and who had it first.
type keptPrefix struct {
	ID     identity.ID  `json:"id"`
	Prefix netip.Prefix `json:"prefix"`
}

// seenMember is a hint for the next start; whoever answers there proves itself anew.
type seenMember struct {
	ID       identity.ID `json:"id"`
	Underlay []string    `json:"underlay"`
}

// addrs are the hints that this version can use.
func (s seenMember) addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range s.Underlay {
		if a, err := netip.ParseAddrPort(text); err == nil && wire.ValidUnderlay(a) {
			out = append(out, a)
		}
	}
	return out
}

// keepNetwork makes the state one of this network and range. A token with other doors is
// one of the same network, and changes nothing. In another range every address is another
// one, so that the claim is dropped. In another network nothing of the state means
// anything: it is dropped but for the count of starts. But a node whose address is pinned
// is part of something that relies on it, and a mistaken token must not make it forget
// that; then the error is ErrNetwork.
func (s *state) keepNetwork(netID [32]byte, v4 netip.Prefix) error {
	id := hex.EncodeToString(netID[:])
	if s.NetID != "" && s.NetID != id {
		if s.Pinned {
			return fmt.Errorf("%w, where its address is pinned in %s", ErrNetwork, s.Network)
		}
		*s = state{Version: s.Version, Incarnation: s.Incarnation, unknown: s.unknown}
	}
	if s.Network != v4 {
		s.Network, s.Attempt, s.Pinned = v4, 0, false
	}
	s.NetID = id
	return nil
}

// keepName returns what this member is called: a pinned one as it was when it was
// pinned, because others know it by that, whatever its machine is called now.
func (s *state) keepName(name string, id identity.ID) string {
	if !s.Pinned || !strings.HasSuffix(s.Name, nameSuffix(id)) { // of another key it is another member's
		s.Name = name
	}
	return s.Name
}

// runtimeState is what must outlive a restart of the daemon, but not of the
// machine, in RuntimeDir/control.json: what the agent told the daemon last.
// Without it a restart would withdraw the node's pod routes and its role for
// as long as the agent needs to say them again.
type runtimeState struct {
	Version     int               `json:"version"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Routes      *api.Routes       `json:"routes,omitempty"`
	Cluster     *api.Cluster      `json:"cluster,omitempty"`

	unknown keepjson.Unknown
}

// readJSON reads path into v and returns what v has no field for. A missing file leaves
// v alone; everything else that is wrong is an error, because unreadable state is not
// empty state.
func readJSON(path string, v any) (unknown keepjson.Unknown, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return unknown, nil
	}
	if err != nil {
		return unknown, fmt.Errorf("read state: %w", err)
	}
	if len(b) > maxStateFile {
		return unknown, fmt.Errorf("read %s: %d bytes: %w", path, len(b), errState)
	}
	if unknown, err = keepjson.Unmarshal(b, v); err != nil {
		return unknown, fmt.Errorf("read %s: %w: %w", path, errState, err)
	}
	return unknown, nil
}

// writeJSON replaces path by v and what is unknown, mode 0600, so that after a power
// failure either the old or the new text is there.
func writeJSON(path string, v any, unknown keepjson.Unknown) (err error) {
	b, err := keepjson.Marshal(v, unknown)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	var text bytes.Buffer
	if err := json.Indent(&text, append(b, '\n'), "", "  "); err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open state directory: %w", err)
	}
	defer func() { _ = d.Close() }() // opened for reading only
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync state directory: %w", err)
	}
	return nil
}

// loadState reads StateDir/state.json; without a StateDir it is empty.
func loadState(dir string) (state, error) {
	s := state{Version: stateVersion}
	if dir == "" {
		return s, nil
	}
	path := filepath.Join(dir, stateFile)
	unknown, err := readJSON(path, &s)
	if err != nil {
		return s, fmt.Errorf("%w; restore it from a backup, or else make this machine a new one: `kairos reset` on a node, another state directory for a bridge", err)
	}
	if s.Version != stateVersion {
		return s, fmt.Errorf("read %s: version %d: %w; run the version of kairos that wrote it, or a later one", path, s.Version, errState)
	}
	s.unknown = unknown
	return s, nil
}

// Names of the files in StateDir and RuntimeDir.
const (
	keyFile     = "identity.key"
	stateFile   = "state.json"
	lockFile    = "lock"
	controlFile = "control.json"
)
