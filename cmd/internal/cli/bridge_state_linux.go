package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/kairos-io/kairos/overlay"
	"github.com/kairos-io/kairos/overlay/token"
)

// A bridge is the same member each time: by user and network, and by machine,
// since a home directory may be on several. So the others know a laptop again,
// and it can be named.

// machineID is what tells the machines apart that share a home directory.
var machineID = "/etc/machine-id"

// keepIdentity gives opts the place where this user's bridge on this network keeps
// who it is. Where none can be had, as in a container, the member is a new one
// each time.
func keepIdentity(opts *overlay.Options) {
	base, owner := stateHome()
	if base == "" {
		return
	}
	dir := filepath.Join(base, "kairos", "bridge", networkDir(opts.Token))
	if err := overlay.KeepState(dir, owner); err != nil {
		opts.Log.Debug("this member will be another the next time", "err", err)
		return
	}
	opts.StateDir, opts.StateOwner = dir, owner
}

// networkDir names the network, which is public, and this machine.
func networkDir(t token.Token) string {
	id := t.Keys().NetID
	name := hex.EncodeToString(id[:8])
	if machine, err := os.ReadFile(machineID); err == nil && len(machine) > 0 {
		sum := sha256.Sum256(machine)
		name += "-" + hex.EncodeToString(sum[:4])
	}
	return name
}

// stateHome is where the user's programs keep state (XDG base directories), and
// who that user is if not this process's own: the one behind sudo. It is "" where
// there is no such place.
func stateHome() (dir string, owner *overlay.Owner) {
	if uid := sudoUID(); uid > 0 {
		u, err := user.LookupId(strconv.Itoa(uid))
		if err != nil || !isDir(u.HomeDir) {
			return "", nil
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return "", nil
		}
		return filepath.Join(u.HomeDir, ".local", "state"), &overlay.Owner{UID: uid, GID: gid}
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	if home := os.Getenv("HOME"); isDir(home) {
		return filepath.Join(home, ".local", "state"), nil
	}
	return "", nil
}

// isDir reports whether a home directory is there: none is made.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir() && filepath.IsAbs(path)
}

// startBridge starts the network. Where a bridge of this user is on it already,
// from here, a second one is a member of its own, which is said.
func startBridge(ctx context.Context, env *Env, opts overlay.Options, kept bool) (*overlay.Node, error) {
	node, err := overlay.Start(ctx, opts)
	if !kept || !errors.Is(err, overlay.ErrStateInUse) {
		return node, err
	}
	opts.StateDir, opts.StateOwner = "", nil
	if node, err = overlay.Start(ctx, opts); err == nil {
		env.Say("another bridge of yours is on this network: this one is a new member until it ends")
	}
	return node, err
}
