package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kairos-io/kairos/agent/genesis"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/agent/trust"
	"github.com/kairos-io/kairos/overlay/identity"
)

// Files of a server in StateDir: the issuer's key, and the record that names it.
const (
	issuerFile  = "issuer.key"
	founderFile = "founder"
)

// founder reads the founder record of this server's cluster; fs.ErrNotExist while there is
// none.
func (a *agent) founder() (raw []byte, err error) {
	raw, err = os.ReadFile(filepath.Join(a.opt.StateDir, founderFile))
	if err != nil {
		return nil, fmt.Errorf("read the founder record: %w", err)
	}
	f, err := trust.Open(raw, a.cfg.NetworkToken.Keys().NetID)
	if err == nil && genesis.UID(f.UID).String() != a.store.State().ClusterUID {
		err = errors.New("it is of another cluster")
	}
	if err != nil {
		return nil, fmt.Errorf("read the founder record: %w", err)
	}
	return raw, nil
}

// found makes the issuer's key and the founder record of a cluster whose k3s has made its
// certificate authority. The key is durable before anything names it.
func (a *agent) found(uid string) error {
	id, err := genesis.ParseUID(uid)
	if err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	ca, err := a.opt.Files.CAKey()
	if err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	key, _, err := identity.LoadOrCreate(filepath.Join(a.opt.StateDir, issuerFile), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the issuer's key: %w", err)
	}
	raw, err := trust.Founder{UID: id, CA: ca, Issuer: key.ID()}.Seal(key, a.cfg.NetworkToken.Keys().NetID)
	if err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	if err := store.WriteFile(store.OS{}, filepath.Join(a.opt.StateDir, founderFile), raw); err != nil {
		return fmt.Errorf("write the founder record: %w", err)
	}
	return nil
}

// issuance is what a server of a cluster has and no worker: the founder record, and the
// issuer's key as its file has it.
func (a *agent) issuance() (founder, key []byte, err error) {
	if founder, err = a.founder(); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil // the cluster is just being born
	}
	if err == nil {
		key, err = os.ReadFile(filepath.Join(a.opt.StateDir, issuerFile))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the issuer's key: %w", err)
	}
	return founder, key, nil
}
