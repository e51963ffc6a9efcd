package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// RawOptions say what a disk is made from.
type RawOptions struct {
	Release string // OCI layout of a release
	Arch    string // empty: this machine's
	Out     string // file to write
	Toolbox ToolboxOptions
}

// loaderConf: no menu, unless somebody holds a key while the machine starts, and
// nobody edits the command line at the console.
const loaderConf = `timeout 0
editor no
console-mode keep
`

// makeDisk: everything is written without loop devices; all UUIDs follow from the
// seed, and a disk of the same release is the same, byte for byte.
const makeDisk = `
rm -f disk.raw
systemd-repart --no-pager --empty=create --size=auto --offline=yes --dry-run=no \
	--architecture="$1" --seed="$2" --definitions=/work/definitions --root=/work disk.raw
`

// Raw writes a disk with the release in slot A. It ends behind the first slot:
// the machine's first boot adds the second, and gives the rest of the disk to its
// data.
func Raw(ctx context.Context, o RawOptions) error {
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	box, err := OpenToolbox(ctx, o.Toolbox)
	if err != nil {
		return err
	}
	m := &medium{box: box}
	if m.arch, err = findArch(o.Arch); err != nil {
		return err
	}
	if m.parts, err = openRelease(o.Release, o.Arch); err != nil {
		return err
	}
	// Beside the result, so that it can be moved there.
	if m.dir, err = workDir(o.Out); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	defer func() { _ = os.RemoveAll(m.dir) }()
	if err := m.prepare(ctx); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	err = box.work(ctx, m.dir, job{epoch: diskEpoch, script: makeDisk, args: []string{m.arch.repart, derivedUUID("disk " + m.parts.digest.Hex)}})
	if err != nil {
		return fmt.Errorf("run systemd-repart: %w", err)
	}
	if err := os.Rename(m.path("disk.raw"), o.Out); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// workDir makes a directory on the file system of the file out.
func workDir(out string) (string, error) {
	dir, err := filepath.Abs(filepath.Dir(out))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(dir, ".new-")
}

// diskEpoch is the time of every file of an ESP: the oldest that FAT knows.
var diskEpoch = time.Date(1980, time.January, 1, 0, 0, 0, 0, time.UTC)

// medium is a disk or ISO while it is made.
type medium struct {
	box   *Toolbox
	arch  arch
	parts parts
	dir   string
}

func (m *medium) path(name string) string { return filepath.Join(m.dir, name) }

// prepare fills the directory with parts, ESP and partition definitions.
func (m *medium) prepare(ctx context.Context) error {
	for name, path := range map[string]string{"root.erofs": m.parts.root, "root.verity": m.parts.verity, "uki.efi": m.parts.uki} {
		if err := linkOrCopy(path, m.path(name)); err != nil {
			return err
		}
	}
	if err := m.esp(ctx); err != nil {
		return err
	}
	root, verity := partitionIDs(m.parts.config.RootHash)
	if err := os.Mkdir(m.path("definitions"), 0o755); err != nil {
		return err
	}
	return definitions(m.path("image/repart.d"), m.path("definitions"), map[string]string{
		"10-esp.conf":      "CopyFiles=/esp:/\n",
		"20-root-a.conf":   "CopyBlocks=/root.erofs\nUUID=" + root + "\n",
		"30-verity-a.conf": "CopyBlocks=/root.verity\nUUID=" + verity + "\n",
	})
}

// takeFiles gets the boot loader and the partition definitions out of the root:
// a release is all that a disk is made from. $1 is the architecture in EFI names.
const takeFiles = `
mkdir image image/repart.d
dump() { dump.erofs --cat --path="$1" root.erofs >"$2"; }
dump "/usr/lib/systemd/boot/efi/systemd-boot$1.efi" image/systemd-boot.efi
for name in 10-esp 20-root-a 30-verity-a; do
	dump "/usr/lib/kairos/repart.d/$name.conf" "image/repart.d/$name.conf"
done
`

// esp lays out the EFI system partition.
func (m *medium) esp(ctx context.Context) error {
	if err := m.box.work(ctx, m.dir, job{epoch: diskEpoch, script: takeFiles, args: []string{m.arch.efi}}); err != nil {
		return fmt.Errorf("take files out of the root: %w", err)
	}
	loader, err := os.ReadFile(m.path("image/systemd-boot.efi"))
	if err != nil {
		return err
	}
	uki, err := os.ReadFile(m.path("uki.efi"))
	if err != nil {
		return err
	}
	slots, err := slotsFile(m.parts)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"EFI/BOOT/BOOT" + strings.ToUpper(m.arch.efi) + ".EFI":    loader,
		"EFI/systemd/systemd-boot" + m.arch.efi + ".efi":          loader,
		fmt.Sprintf("EFI/Linux/kairos-%06d.efi", firstGeneration): uki,
		"loader/loader.conf":  []byte(loaderConf),
		"loader/entries.srel": []byte("type1\n"),
		"kairos/slots.json":   slots,
	}
	for name, data := range files {
		path := filepath.Join(m.path("esp"), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			return fmt.Errorf("write ESP: %w", err)
		}
	}
	return nil
}

// linkOrCopy makes dst the same file as src, or one with the same content where
// they are on different file systems.
func linkOrCopy(src, dst string) error {
	if err := os.Link(src, dst); err == nil {
		return nil
	}
	data, err := os.Open(src)
	if err != nil {
		return err
	}
	defer data.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(data)
	return errors.Join(err, out.Close())
}
