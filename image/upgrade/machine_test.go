package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

// machine is a disk in a file and an ESP in a directory, with one system that runs.
type machine struct {
	slots.Machine
	t *testing.T
}

// source gives a test system.
type source slotstest.System

func (s source) Fetch(_ context.Context, p slots.Part, write func(io.Reader) error) error {
	return write(strings.NewReader(string(map[slots.Part][]byte{slots.Root: s.Root, slots.Verity: s.Verity, slots.Kernel: s.UKI}[p])))
}

// newMachine flashes a disk.
func newMachine(t *testing.T, s slotstest.System) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{slots.Machine{Disk: slots.Device{Path: filepath.Join(dir, "disk.img")}, ESP: slots.Directory(filepath.Join(dir, "efi")), RootHash: s.RootHash}, t}
	must(t, os.WriteFile(m.Disk.Path, slotstest.Disk(), 0o600))
	must(t, os.MkdirAll(filepath.Join(string(m.ESP), "kairos"), 0o700))
	f, err := m.Facts()
	must(t, err)
	rel := slots.Release{Config: release.Config{Version: s.Version, Arch: s.Arch, Flavour: "generic", RootHash: s.RootHash},
		Pieces: map[slots.Part]slots.Piece{slots.Root: {Size: int64(len(s.Root))}, slots.Verity: {Size: int64(len(s.Verity))}, slots.Kernel: {Size: int64(len(s.UKI))}}}
	p, err := slots.PlanInstall(f, rel)
	must(t, err)
	w := &slots.Writer{Disk: m.Disk, ESP: m.ESP, Source: source(s), Release: rel}
	must(t, w.Run(t.Context(), p))
	return m
}

// status is what the slots are now.
func (m *machine) status() slots.Status {
	m.t.Helper()
	f, err := m.Facts()
	must(m.t, err)
	st, err := slots.Inspect(f)
	must(m.t, err)
	return st
}

// sums returns the SHA-256 of the disk and of each file on the ESP.
func (m *machine) sums() map[string]string {
	m.t.Helper()
	out := map[string]string{}
	for _, root := range []string{m.Disk.Path, string(m.ESP)} {
		must(m.t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			out[path] = hashOf(raw)
			return err
		}))
	}
	return out
}

func hashOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// stage does what `kairos upgrade --stage` does.
func (m *machine) stage(o Options) error {
	offer, err := Find(m.t.Context(), o)
	if err != nil {
		return err
	}
	f, err := m.Facts()
	must(m.t, err)
	rel := offer.Release(day)
	p, err := slots.PlanUpgrade(f, rel)
	if err != nil {
		return err
	}
	return (&slots.Writer{Disk: m.Disk, ESP: m.ESP, Source: offer, Release: rel}).Run(m.t.Context(), p)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ref(t testing.TB, s string) oci.Ref {
	t.Helper()
	r, err := oci.ParseRef(s)
	must(t, err)
	return r
}

// at are options for a reference; a test does not wait for pauses between tries.
func at(t testing.TB, s string) Options {
	t.Helper()
	return Options{Ref: ref(t, s), OCI: oci.Options{Attempts: 1}, Arch: "amd64"}
}

// layoutOf writes drafts into a fresh layout and returns its directory and the index's digest.
func layoutOf(t testing.TB, name string, drafts ...*upgradetest.Draft) (dir, digest string) {
	t.Helper()
	dir = t.TempDir()
	digest, err := upgradetest.Layout(dir, name, drafts...)
	must(t, err)
	return dir, digest
}
