package overlay

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kairos-io/kairos/overlay/api"
)

// Two members of one identity would fight for their connections: the second is
// refused, as long as the first runs and no longer.
func TestOneMemberPerStateDirectory(t *testing.T) {
	opts := Options{Token: newToken(t, 1), Name: "one", StateDir: t.TempDir()}
	first := boot(t, opts)
	second := opts
	second.Kind, second.Interface, second.RuntimeDir = api.KindNode, "two", t.TempDir()
	if n, err := Start(t.Context(), second); !errors.Is(err, ErrStateInUse) {
		t.Fatalf("a second one started: %v, %v", n, err)
	}
	id := first.ID()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again := boot(t, opts); again.ID() != id {
		t.Error("it came back as another")
	}
}

// A laptop that leaves and comes back is the same member, and the others take it
// for that at once.
func TestBridgeComesBackAsItself(t *testing.T) {
	tok := newToken(t, 3)
	node := boot(t, Options{Token: tok, Name: "node"})
	opts := Options{Token: tok, Name: "laptop", Kind: api.KindBridge, StateDir: t.TempDir()}
	laptop := boot(t, opts, node)
	id, addr := laptop.ID(), laptop.Status().Addresses[0]
	for range 3 {
		// Each end is connected in its own time: who leaves before it knows whom it
		// reaches says goodbye to nobody.
		node.await(t, "the laptop", connectedTo(id))
		laptop.await(t, "the node", connectedTo(node.ID()))
		if err := laptop.Close(); err != nil {
			t.Fatal(err)
		}
		node.await(t, "the laptop's goodbye", absent(id))
		laptop = boot(t, opts, node)
		if laptop.ID() != id || laptop.Status().Addresses[0] != addr {
			t.Fatalf("it came back as %s at %s", laptop.ID().Short(), laptop.Status().Addresses[0])
		}
	}
	node.await(t, "the laptop", connectedTo(id))
}

// Root keeps a person's state with that person's rights: the files are theirs,
// and a link that they put there leads nowhere that they do not get alone.
func TestStateOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to act for another user")
	}
	const uid, gid = 61234, 61235
	owner := &Owner{UID: uid, GID: gid}
	home := t.TempDir()
	// The testing package makes its two directories for this user alone.
	if err := errors.Join(os.Chmod(home, 0o755), os.Chmod(filepath.Dir(home), 0o755)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, "mine", "kairos")
	if err := errors.Join(os.Mkdir(filepath.Dir(dir), 0o700), os.Chown(filepath.Dir(dir), uid, gid), KeepState(dir, owner)); err != nil {
		t.Fatal(err)
	}
	n := boot(t, Options{Token: newToken(t, 1), Name: "owned", StateDir: dir, StateOwner: owner})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"": fs.ModeDir | 0o700, keyFile: 0o600, stateFile: 0o600, lockFile: 0o600} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		st, _ := info.Sys().(*syscall.Stat_t)
		if st.Uid != uid || st.Gid != gid || info.Mode() != mode {
			t.Errorf("%q is of %d:%d, mode %v", name, st.Uid, st.Gid, info.Mode())
		}
	}

	root := filepath.Join(home, "root")
	if err := errors.Join(os.Mkdir(root, 0o700), os.Symlink(root, filepath.Join(home, "mine", "link"))); err != nil {
		t.Fatal(err)
	}
	through := filepath.Join(home, "mine", "link", "kairos")
	if err := KeepState(through, owner); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a link led into root's directory: %v", err)
	}
	if _, err := Start(t.Context(), Options{Token: newToken(t, 1), Name: "x", Kind: api.KindBridge, Interface: "x", StateDir: through, StateOwner: owner}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a link led into root's directory: %v", err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("root's directory holds %v, %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(root, "free"), nil, 0o600); err != nil {
		t.Errorf("root did not get its rights back: %v", err)
	}
}
