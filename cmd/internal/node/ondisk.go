package node

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/intake"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/store"
)

// agentState is where the agent keeps what it must not forget.
const agentState = "/var/lib/kairos/agent"

// membership is what this machine is in a cluster, by what is written on its
// disk: it says so whether the daemons run or not.
type membership struct {
	role      store.Role
	running   bool   // its k3s has answered: the agent starts it wherever it can
	networkID string // "" where only the marker in k3s' data is left
	uid       string
	problem   error // why the role may be another one than role
}

// membershipOf reads the agent's state below the root, and where that says
// nothing the marker in k3s' data, as the agent does. A datastore that neither
// names is a server's.
func membershipOf(root string) membership {
	st, _, err := store.Read(filepath.Join(root, agentState))
	if err == nil && st.Role != store.NoRole {
		return membership{role: st.Role, running: st.Phase.AtLeast(store.Running), networkID: st.NetworkID, uid: st.ClusterUID}
	}
	files := k3s.Files{Dir: filepath.Join(root, k3s.DefaultDataDir)}
	m, found, markerErr := files.ReadMarker()
	if markerErr == nil && found {
		return membership{role: m.Role, running: true, uid: m.UID}
	}
	data, dataErr := files.HasDatastore()
	if data {
		return membership{role: store.Server, running: true}
	}
	if markerErr = errors.Join(markerErr, dataErr); markerErr == nil {
		return membership{} // whatever the state said: there is nothing of a cluster here
	}
	return membership{problem: errors.Join(err, markerErr)}
}

// endsCluster reports whether a cluster may end when this machine's data is wiped.
func (m membership) endsCluster() bool { return m.role == store.Server || m.problem != nil }

// ownConfig is the configuration that this machine goes by.
//
// The merged one is in force; where it is missing, the files that it is made of
// are asked, because a boot that refused them, or has not merged them yet, has
// none. Only a machine that nobody gave a configuration has the default one.
// What was given and cannot be used is an error, and never the default.
func ownConfig(root, merged string) (config.Config, error) {
	c, err := config.LoadFile(merged)
	if errors.Is(err, fs.ErrNotExist) {
		c, _, err = givenConfig(root)
	}
	return c, err
}

// givenConfig is what the files below the root come to, in this version's eyes;
// found is false where nobody gave any, and the default counts.
func givenConfig(root string) (c config.Config, found bool, err error) {
	files, err := config.Sources(root)
	if err != nil {
		return c, false, err
	}
	loaded, err := config.Load(files...)
	if err == nil {
		return loaded.Config, true, nil
	}
	var problems config.Problems
	if !errors.Is(err, config.ErrNoBlock) || errors.As(err, &problems) {
		return c, false, err
	}
	if why := untaken(root, files); why != nil {
		return c, false, why
	}
	return config.Default(), false, nil
}

// errUntaken: a person gave a configuration that never became a file to read.
var errUntaken = errors.New("this machine was given a configuration that was not taken in")

// untaken tells of a configuration that lies on the ESP, or that the kernel
// argument or a credential names, while no file has it: it was refused, or not
// fetched yet.
func untaken(root string, files []string) error {
	taken := func(by string) bool {
		return slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, "-"+by+".yaml") })
	}
	arg, err := intake.Machine{Root: root}.Argument()
	if (err != nil || arg.Text != nil || arg.URL != nil) && !taken("argument") {
		return errors.Join(errUntaken, err)
	}
	esp, espErr := exists(filepath.Join(root, "efi", "config.yaml"))
	credential, credentialErr := exists(filepath.Join(root, "run/credentials/@system", intake.Argument))
	if err := errors.Join(espErr, credentialErr); err != nil || esp || credential && !taken("credential") {
		return errors.Join(errUntaken, err)
	}
	return nil
}
