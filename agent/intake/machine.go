package intake

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/store"
)

// Where things are, below the root of the file system.
const (
	espFile        = "efi/config.yaml"
	espTaken       = "oem/80-esp.yaml"
	sourcesDir     = "run/kairos/sources"
	fromESP        = sourcesDir + "/40-esp.yaml" // of a file that was refused
	fromCredential = sourcesDir + "/50-credential.yaml"
	fromArgument   = sourcesDir + "/60-argument.yaml"
	keptDir        = "var/lib/kairos/config"
	liveMark       = "run/kairos/live"
)

// Argument is the kernel argument, and the name of the system credential.
const Argument = "kairos.config"

// Machine is the machine that takes configuration in: its file system below
// Root, which is "/" outside of tests. The methods are for one process at a time.
type Machine struct {
	Root string
	// Credentials is the directory of the unit's credentials, systemd.exec(5);
	// "" for none.
	Credentials string
}

// Report is what a step did and refused, one line each for a person.
type Report struct {
	Done    []string
	Refused []string // nothing of these was taken; they say file, line, key and reason
}

func (m Machine) path(name string) string { return filepath.Join(m.Root, name) }

func (m Machine) exists(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

// write replaces a file of mode 0600 and the directory above it, of mode 0700.
func (m Machine) write(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := store.WriteFile(store.OS{}, m.path(name), data); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// remove deletes a file for good; one that is not there is no error.
func (m Machine) remove(name string) error {
	err := os.Remove(m.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if err := (store.OS{}).SyncDir(filepath.Dir(m.path(name))); err != nil {
		return fmt.Errorf("remove %s: sync directory: %w", name, err)
	}
	return nil
}

// ID returns the machine's ID, machine-id(5); "" while it has none.
func (m Machine) ID() string {
	raw, err := os.ReadFile(m.path("etc/machine-id"))
	id := strings.TrimSpace(string(raw))
	if err != nil || len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// Gather takes in what is there before the network is: the ESP's file, the
// credential and an argument that holds its text or whose URL was read before.
// What one way refuses does not keep the others from being taken. The error is
// the machine's own: a disk that cannot be written.
func (m Machine) Gather() (Report, error) {
	var r Report
	var errs []error
	for _, step := range []func(*Report) error{m.esp, m.credential, m.argument} {
		if err := step(&r); err != nil {
			errs = append(errs, err)
		}
	}
	return r, errors.Join(errs...)
}

// esp moves the file that a person put on the ESP. It is removed there only
// once the copy is durable; a power cut between leaves both, and the next boot
// does the same again. On a live medium it is meant for the installer.
func (m Machine) esp(r *Report) error {
	if err := m.remove(fromESP); err != nil {
		return err
	}
	if m.exists(liveMark) || !m.exists(espFile) {
		return nil
	}
	if err := config.CheckPart(m.path(espFile), m.ID()); err != nil {
		return errors.Join(m.refuse(r, "", err), m.takeRest(r, espFile, fromESP, "/"+espFile))
	}
	raw, err := os.ReadFile(m.path(espFile))
	if err != nil {
		return fmt.Errorf("read %s: %w", espFile, err)
	}
	if err := m.write(espTaken, raw); err != nil {
		return err
	}
	if err := m.remove(espFile); err != nil {
		return err
	}
	r.Done = append(r.Done, "took /"+espFile+" over to /"+espTaken)
	return nil
}

func (m Machine) credential(r *Report) error {
	if m.Credentials == "" {
		return m.remove(fromCredential)
	}
	raw, err := os.ReadFile(filepath.Join(m.Credentials, Argument))
	if errors.Is(err, fs.ErrNotExist) {
		return m.remove(fromCredential)
	}
	if err != nil {
		return fmt.Errorf("read the credential %s: %w", Argument, err)
	}
	return m.take(r, given{raw, fromCredential, "the credential " + Argument})
}

// argument takes a text that stands in the argument, or what its URL gave before.
func (m Machine) argument(r *Report) error {
	arg, err := m.Argument()
	if err != nil {
		r.Refused = append(r.Refused, err.Error())
		return m.remove(fromArgument)
	}
	switch {
	case arg.Text != nil:
		return m.take(r, given{arg.Text, fromArgument, "the kernel argument " + Argument})
	case arg.URL == nil:
		return m.remove(fromArgument)
	}
	raw, err := os.ReadFile(m.path(kept(arg.URL)))
	if errors.Is(err, fs.ErrNotExist) {
		return m.remove(fromArgument)
	}
	if err != nil {
		return fmt.Errorf("read what %s gave: %w", shown(arg.URL), err)
	}
	return m.write(fromArgument, raw)
}

// given is a text that arrived, where it goes and what messages call it.
type given struct {
	raw      []byte
	file, by string
}

// take writes a text where package config reads it, and leaves there what is
// cloud-init's when it is not good.
func (m Machine) take(r *Report, g given) error {
	if err := m.write(g.file, g.raw); err != nil {
		return err
	}
	if err := config.CheckPart(m.path(g.file), m.ID()); err != nil {
		return errors.Join(m.refuse(r, g.by, err), m.takeRest(r, g.file, g.file, g.by))
	}
	r.Done = append(r.Done, "took "+g.by)
	return nil
}

// takeRest takes of a text that was refused what cloud-init understands: who may log
// in to mend the rest. Where that is at fault too, nothing of the text is left.
func (m Machine) takeRest(r *Report, from, to, by string) error {
	own, err := config.LoadSystem(m.ID(), m.path(from))
	var problems config.Problems
	switch {
	case errors.As(err, &problems): // told as the reason why all was refused
		return m.remove(to)
	case err != nil:
		return err
	case own.Empty():
		return m.remove(to)
	}
	text, err := own.CloudConfig()
	if err != nil {
		return err
	}
	r.Done = append(r.Done, "took what is cloud-init's of "+by+" all the same")
	return m.write(to, text)
}

// refuse notes what is wrong with a text. by replaces the name of a file that
// does not stay; any other error than the text's is passed on.
func (m Machine) refuse(r *Report, by string, err error) error {
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
		for _, p := range problems {
			if by != "" {
				p.File = by
			} else if rel, err := filepath.Rel(m.Root, p.File); err == nil {
				p.File = "/" + rel
			}
			r.Refused = append(r.Refused, p.Error())
		}
		return nil
	case errors.Is(err, config.ErrNoBlock):
		if by == "" {
			by = "/" + espFile
		}
		r.Refused = append(r.Refused, by+": has neither a kairos block nor a key of cloud-init's")
		return nil
	}
	return err
}

// readText reads a file of the machine, nil where there is none.
func (m Machine) readText(name string) []byte {
	raw, err := os.ReadFile(m.path(name))
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(raw)
}
