package vm

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// Rack is where a test keeps its machines and LANs: Close switches everything
// off and removes every file. Its methods are for one goroutine at a time.
type Rack struct {
	Tools *Toolbox

	dir      string
	owner    *os.File // locked for as long as this process lives
	key      ssh.Signer
	lans     []*LAN
	machines []*Machine
}

// Open makes a rack below build/vm of the repository at root, and removes those
// whose processes are gone.
func Open(ctx context.Context, root string, log io.Writer) (*Rack, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("open a rack of virtual machines: needs root (namespaces and mounts)")
	}
	tools, err := OpenToolbox(ctx, root, log)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(root, "build", "vm")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, fmt.Errorf("open a rack of virtual machines: %w", err)
	}
	unlock, err := lockFile(home + ".lock") // between making a rack and owning it
	if err != nil {
		return nil, fmt.Errorf("open a rack of virtual machines: %w", err)
	}
	defer unlock()
	if err := removeOrphans(home); err != nil {
		return nil, err
	}
	r := &Rack{Tools: tools}
	if r.dir, err = os.MkdirTemp(home, "rack-"); err != nil {
		return nil, fmt.Errorf("open a rack of virtual machines: %w", err)
	}
	if r.owner, err = lockDir(r.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("open a rack of virtual machines: %w", err), os.RemoveAll(r.dir))
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err == nil {
		r.key, err = ssh.NewSignerFromSigner(private)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make an ssh key: %w", err), r.Close())
	}
	return r, nil
}

// lockDir marks a rack as owned; it fails while another process does.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeOrphans removes what racks of killed tests left: files, nothing else.
func removeOrphans(home string) error {
	racks, err := filepath.Glob(filepath.Join(home, "rack-*"))
	if err != nil {
		return fmt.Errorf("list old racks: %w", err)
	}
	for _, dir := range racks {
		owner, err := lockDir(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at an old rack: %w", err)
		}
		if err := errors.Join(os.RemoveAll(dir), owner.Close()); err != nil {
			return fmt.Errorf("remove an old rack: %w", err)
		}
	}
	return nil
}

// Dir is a directory for files of the test that Close removes.
func (r *Rack) Dir() string { return r.dir }

// Machines are all machines, in the order in which they were made.
func (r *Rack) Machines() []*Machine { return r.machines }

// AuthorizedKey is the key with which the rack logs in to its machines, as a
// line of authorized_keys.
func (r *Rack) AuthorizedKey() string { return string(ssh.MarshalAuthorizedKey(r.key.PublicKey())) }

// NewLAN starts a LAN.
func (r *Rack) NewLAN(ctx context.Context) (*LAN, error) {
	dir := filepath.Join(r.dir, fmt.Sprintf("lan%d", len(r.lans)+1))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start a LAN: %w", err)
	}
	l, err := newLAN(ctx, r.Tools, dir)
	if err != nil {
		return nil, err
	}
	r.lans = append(r.lans, l)
	return l, nil
}

// Close ends the rack as a power cut would, and removes it.
func (r *Rack) Close() error {
	var errs []error
	for _, m := range r.machines {
		m.Kill()
		errs = append(errs, m.log.Close())
	}
	for _, l := range r.lans {
		l.close()
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir), r.owner.Close())...)
}
