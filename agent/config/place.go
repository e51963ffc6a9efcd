package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/token"
)

// lastGood is where the last good configuration is kept, below the root of the file
// system. It has the token in it.
const lastGood = "var/lib/kairos/last-good"

// Place is where a machine's configuration lies.
type Place struct {
	Root string // of the file system with the sources; "/" outside of tests
	Dir  string // of what is in force, which the daemons read; empty after a boot
}

// Merge puts what the sources come to in force, and keeps it for other boots. What
// cannot be used is an error, mostly Problems: what was in force stays, or becomes so
// again after a boot; InForce tells. joined says that this machine has taken part in
// the agreement on a cluster, after which some keys cannot change any more.
//
// Nothing is written that would not be another one.
func (p Place) Merge(joined bool) (*Loaded, error) {
	loaded, err := p.load(joined)
	if err != nil {
		return nil, errors.Join(err, p.restore())
	}
	for _, dir := range []string{filepath.Join(p.Root, lastGood), p.Dir} {
		if err := Apply(loaded.Config, dir); err != nil {
			return nil, err
		}
	}
	return loaded, nil
}

// InForce is the text of what is in force, nil for nothing. It has the token in it.
func (p Place) InForce() []byte {
	raw, err := os.ReadFile(filepath.Join(p.Dir, KairosFile))
	if err != nil {
		return nil // it is told by whoever needs it
	}
	return raw
}

func (p Place) load(joined bool) (*Loaded, error) {
	files, err := Sources(p.Root)
	if err != nil {
		return nil, err
	}
	loaded, err := Load(files...)
	if err != nil || !joined {
		return loaded, err
	}
	old, err := LoadFile(filepath.Join(p.Root, lastGood, KairosFile))
	if err != nil {
		return loaded, nil // nothing to compare with: the agent's own state tells
	}
	if problems := loaded.unchangeable(old); len(problems) > 0 {
		return nil, problems.sorted(files)
	}
	return loaded, nil
}

// restore puts the last good configuration in force where none is.
func (p Place) restore() error {
	if p.InForce() != nil {
		return nil
	}
	good, err := LoadFile(filepath.Join(p.Root, lastGood, KairosFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("go back to the last good configuration: %w", err)
	}
	return Apply(good, p.Dir)
}

// unchangeable lists what a machine that takes part in a cluster cannot change.
func (l *Loaded) unchangeable(old Config) Problems {
	const way = "set it back, or run `kairos reset` first"
	var out Problems
	refuse := func(key, reason string) {
		at, ok := l.Origins[key]
		if !ok { // taken out, so that the default counts
			at = Origin{File: l.Origins[root].File}
		}
		out = append(out, Problem{at, key, reason + ": " + way, ""})
	}
	next := l.Config
	if old.NetworkToken.Keys().Genesis != next.NetworkToken.Keys().Genesis {
		refuse(root+".network_token", "cannot become that of another network on a machine that takes part in a cluster")
	}
	if old.NetworkID != next.NetworkID {
		refuse(root+".network_id", fmt.Sprintf("cannot change on a machine that takes part in the cluster of %q", old.NetworkID))
	}
	if old.Overlay.CIDR != next.Overlay.CIDR {
		refuse(root+".overlay.cidr", "cannot change while this machine's address is that of a node of a cluster")
	}
	return out
}

// Changed lists the dotted keys that are not the same in two configurations.
func Changed(old, next Config) []string {
	return changed(reflect.ValueOf(old), reflect.ValueOf(next), "")
}

func changed(a, b reflect.Value, prefix string) []string {
	var out []string
	for i := range a.NumField() {
		key := prefix + a.Type().Field(i).Tag.Get("yaml")
		x, y := a.Field(i), b.Field(i)
		switch v := x.Interface().(type) {
		case Overlay, Cluster, K3s, OS:
			out = append(out, changed(x, y, key+".")...)
		case token.Token:
			if v.Reveal() != y.Interface().(token.Token).Reveal() {
				out = append(out, key)
			}
		default:
			if !reflect.DeepEqual(v, y.Interface()) {
				out = append(out, key)
			}
		}
	}
	return out
}

// Restarts names what is started anew for changed keys. Pods go on whatever it is.
func Restarts(keys []string) []string {
	out := []string{"kairos-agent"}
	of := func(what string, is func(key string) bool) {
		if slices.ContainsFunc(keys, is) {
			out = append(out, what)
		}
	}
	of("kairos-overlay", func(k string) bool {
		return !strings.HasPrefix(k, "cluster.") && !strings.HasPrefix(k, "k3s.") && !strings.HasPrefix(k, "os.")
	})
	of("k3s", func(k string) bool { return strings.HasPrefix(k, "k3s.") })
	return out
}

// Stamp changes whenever a source, or what is in force, was written: a look that is
// cheap enough for every turn of a loop.
func (p Place) Stamp() string {
	files, err := Sources(p.Root)
	var b strings.Builder
	for _, f := range append(files, filepath.Join(p.Dir, KairosFile)) {
		info, serr := os.Stat(f)
		if serr != nil {
			fmt.Fprintf(&b, "%s %v\n", f, serr)
			continue
		}
		fmt.Fprintf(&b, "%s %d %s %o\n", f, info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano), info.Mode())
	}
	return fmt.Sprintln(b.String(), err)
}

// put writes a file unless that is what it says already.
func put(file string, raw []byte) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, raw) {
		return nil
	}
	return store.WriteFile(store.OS{}, file, raw)
}
