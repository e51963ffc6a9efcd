package intake

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kairos-io/kairos/agent/config"
)

// Files of cloud-init's, and ours for it, below the root.
const (
	runConfig    = "run/cloud-init/cloud.cfg" // ds-identify's result, cloud-init's runtime configuration
	runResult    = "run/cloud-init/.ds-identify.result"
	runEnabled   = "run/cloud-init/enabled"
	runDisabled  = "run/cloud-init/disabled"
	instanceText = "var/lib/cloud/instance/cloud-config.txt"
	instanceSem  = "var/lib/cloud/instance/sem"

	seedDir     = "run/kairos/cloud/seed"
	overFile    = "run/kairos/cloud/over.cfg"
	environment = "run/kairos/cloud/environment" // of cloud-init-main.service
	appliedFile = keptDir + "/applied"
	earlierFile = keptDir + "/datasource.yaml" // config.Sources reads it
)

// ownMark is the first line of a runConfig that is ours.
const ownMark = "# Written by kairos-agent: local files hold keys of cloud-init's.\n"

// HandOver gives cloud-init the keys of local files that are its business, and
// reports whether cloud-init has to be started: without a datasource its
// generator has left it out of the boot. It must run after that generator and
// before cloud-init. A Problems as error says which file is at fault; nothing
// is handed over then, and what earlier boots applied stays as it is.
func (m Machine) HandOver() (start bool, err error) {
	files, err := config.LocalSources(m.Root)
	if err != nil {
		return false, err
	}
	local, err := config.LoadSystem(m.ID(), files...)
	if err != nil {
		return false, err
	}
	datasource := m.datasource()
	if datasource {
		// It is about to say anew what this file remembers.
		if err := m.remove(earlierFile); err != nil {
			return false, err
		}
	}
	switch {
	case local.Empty() && datasource:
		return false, m.liftOff()
	case local.Empty():
		return false, errors.Join(m.remove(overFile), m.remove(environment))
	case datasource:
		return false, m.layOver(local)
	}
	return true, m.seed(local)
}

var datasourceList = regexp.MustCompile(`(?m)^datasource_list: *\[([^\]]*)\]`)

// datasource reports whether ds-identify found one in this boot.
func (m Machine) datasource() bool {
	text := string(m.readText(runConfig))
	found := datasourceList.FindStringSubmatch(text)
	if found == nil || strings.HasPrefix(text, strings.TrimSpace(ownMark)) {
		return false
	}
	for name := range strings.SplitSeq(found[1], ",") {
		if name = strings.TrimSpace(name); name != "" && name != "None" {
			return true
		}
	}
	return false
}

// Runs reports whether cloud-init is part of this boot already.
func (m Machine) Runs() bool { return m.exists(runEnabled) }

// layOver makes the keys win over those of the datasource.
func (m Machine) layOver(local *config.System) error {
	text, err := local.CloudConfig()
	if err != nil {
		return err
	}
	if err := m.write(overFile, text); err != nil {
		return err
	}
	if err := m.write(environment, []byte("CLOUD_CFG=/"+overFile+"\n")); err != nil {
		return err
	}
	sum := hash(text)
	if string(m.readText(appliedFile)) == sum {
		return nil
	}
	// The marks go first: a power cut between costs one application more, not one less.
	if err := m.forgetApplied(); err != nil {
		return err
	}
	return m.write(appliedFile, []byte(sum+"\n"))
}

// liftOff lets the datasource count alone, after local files have been over it.
func (m Machine) liftOff() error {
	if err := errors.Join(m.remove(overFile), m.remove(environment)); err != nil || !m.exists(appliedFile) {
		return err
	}
	if err := m.forgetApplied(); err != nil {
		return err
	}
	return m.remove(appliedFile)
}

// forgetApplied removes cloud-init's marks of what it does once for an instance.
func (m Machine) forgetApplied() error {
	marks, err := filepath.Glob(m.path(instanceSem + "/*"))
	if err != nil {
		return fmt.Errorf("list what cloud-init applied: %w", err)
	}
	for _, mark := range marks {
		if err := os.Remove(mark); err != nil {
			return fmt.Errorf("let cloud-init apply changed files: %w", err)
		}
	}
	return nil
}

// seed makes the keys a NoCloud seed and the only datasource.
func (m Machine) seed(local *config.System) error {
	text, err := local.CloudConfig()
	if err != nil {
		return err
	}
	network, err := local.NetworkConfig()
	if err != nil {
		return err
	}
	// What a datasource said of our block would go with its instance.
	if config.HasBlock(m.path(instanceText)) {
		raw, err := os.ReadFile(m.path(instanceText))
		if err != nil {
			return fmt.Errorf("keep what the datasource said: %w", err)
		}
		if err := m.write(earlierFile, raw); err != nil {
			return err
		}
	}
	name := m.hostname(local.Hostname())
	meta, err := config.ToYAML(map[string]string{"instance-id": "kairos-" + hash(text, network)[:16], "local-hostname": name})
	if err != nil {
		return fmt.Errorf("encode what cloud-init is to know of this machine: %w", err)
	}
	files := map[string][]byte{"meta-data": meta, "user-data": text, "network-config": network}
	for file, data := range files {
		if data == nil {
			err = m.remove(filepath.Join(seedDir, file))
		} else {
			err = m.write(filepath.Join(seedDir, file), data)
		}
		if err != nil {
			return err
		}
	}
	return m.enable(network == nil)
}

// enable makes ds-identify's result what it would be, had it found the seed.
// With leaveNetwork cloud-init writes no configuration of interfaces: there is
// one in the image already.
func (m Machine) enable(leaveNetwork bool) error {
	text := ownMark + "datasource_list: [ NoCloud, None ]\n" +
		"datasource: {NoCloud: {seedfrom: /" + seedDir + "/, fs_label: null}}\n"
	if leaveNetwork {
		text += "network: {config: disabled}\n"
	}
	for _, f := range []struct{ name, text string }{{runConfig, text}, {runResult, "0\n"}, {runEnabled, ""}} {
		if err := os.MkdirAll(filepath.Dir(m.path(f.name)), 0o755); err != nil {
			return fmt.Errorf("turn cloud-init on: %w", err)
		}
		if err := os.WriteFile(m.path(f.name), []byte(f.text), 0o644); err != nil {
			return fmt.Errorf("turn cloud-init on: %w", err)
		}
	}
	return errors.Join(m.remove(runDisabled), m.remove(overFile), m.remove(environment))
}

func hash(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p)) // a hash takes everything
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
