package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/kairos-io/kairos/image/slots"
)

// MediumOptions say what a disk or an installer medium is made from.
type MediumOptions struct {
	Release string // OCI layout of a release
	Arch    string // empty: this machine's
	Config  []byte // a checked cloud-config for whoever boots it, which makes it secret; nil: none
	Out     string // file to write; one whose name ends in .zst is compressed
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
systemd-repart --no-pager --empty=create --size=auto --offline=yes --dry-run=no \
	--architecture="$1" --seed="$2" --definitions=/work/definitions --root=/work medium
`

// Raw writes a disk with the release in slot A. It ends behind the first slot:
// the machine's first boot adds the second, and gives the rest of the disk to its
// data.
func Raw(ctx context.Context, o MediumOptions) error {
	return o.make(ctx, (*medium).raw)
}

func (m *medium) raw(ctx context.Context) error {
	root, verity, err := slots.UUIDs(m.parts.config.RootHash)
	if err != nil {
		return err
	}
	if err := m.esp(nil); err != nil {
		return err
	}
	if err := os.Mkdir(m.path("definitions"), 0o755); err != nil {
		return err
	}
	for name, lines := range map[string]string{
		"10-esp.conf":      "CopyFiles=/esp:/\n",
		"20-root-a.conf":   "CopyBlocks=/root.erofs\nUUID=" + root.String() + "\n",
		"30-verity-a.conf": "CopyBlocks=/root.verity\nUUID=" + verity.String() + "\n",
	} {
		text, err := os.ReadFile(m.path("image/" + name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(m.path("definitions/"+name), append(text, lines...), 0o644); err != nil {
			return err
		}
	}
	err = m.box.work(ctx, m.dir, job{epoch: diskEpoch, script: makeDisk, args: []string{m.arch.repart, derivedUUID("disk " + m.parts.digest.Hex)}})
	if err != nil {
		return fmt.Errorf("run systemd-repart: %w", err)
	}
	return nil
}

// make runs step on a directory with the parts of the release, and moves the file
// "medium" that it makes there to where it belongs.
func (o MediumOptions) make(ctx context.Context, step func(*medium, context.Context) error) error {
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	m := &medium{config: o.Config}
	var err error
	if m.arch, err = findArch(o.Arch); err != nil {
		return err
	}
	if m.box, err = OpenToolbox(ctx, o.Toolbox); err != nil {
		return err
	}
	if m.parts, err = openRelease(o.Release, o.Arch); err != nil {
		return err
	}
	// Beside the result, so that it can be moved there.
	if m.dir, err = workDir(o.Out); err != nil {
		return fmt.Errorf("make %s: %w", o.Out, err)
	}
	defer func() { _ = os.RemoveAll(m.dir) }()
	if err := m.prepare(ctx); err != nil {
		return fmt.Errorf("make %s: %w", o.Out, err)
	}
	if err := step(m, ctx); err != nil {
		return fmt.Errorf("make %s: %w", o.Out, err)
	}
	if err := m.finish(ctx, o.Out); err != nil {
		return fmt.Errorf("make %s: %w", o.Out, err)
	}
	return nil
}

// compress: several threads give the same bytes as one.
const compress = `
zstd --quiet -T0 --rm medium -o medium.zst
mv medium.zst medium
chmod 0644 medium
`

// finish moves the medium to where it belongs.
func (m *medium) finish(ctx context.Context, out string) error {
	if err := writeBootSector(m.path("medium")); err != nil {
		return fmt.Errorf("write boot sector: %w", err)
	}
	if strings.HasSuffix(out, ".zst") {
		if err := m.box.work(ctx, m.dir, job{epoch: diskEpoch, script: compress}); err != nil {
			return fmt.Errorf("run zstd: %w", err)
		}
	}
	if m.config != nil {
		if err := os.Chmod(m.path("medium"), 0o600); err != nil {
			return err
		}
	}
	return os.Rename(m.path("medium"), out)
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

	config []byte // nil: none
}

func (m *medium) path(name string) string { return filepath.Join(m.dir, name) }

// takeFiles gets the boot loader and the partition definitions out of the root:
// a release is all that a medium is made from. $1 is the architecture in EFI names.
const takeFiles = `
mkdir image
dump() { dump.erofs --cat --path="$1" root.erofs >"$2"; }
dump "/usr/lib/systemd/boot/efi/systemd-boot$1.efi" image/systemd-boot.efi
dump "/usr/lib/systemd/boot/efi/addon$1.efi.stub" image/addon.efi.stub
for name in 10-esp.conf 20-root-a.conf 30-verity-a.conf; do
	dump "/usr/lib/kairos/repart.d/$name" "image/$name"
done
`

// prepare fills the directory with the parts and what is needed of the root.
func (m *medium) prepare(ctx context.Context) error {
	for name, path := range map[string]string{"root.erofs": m.parts.root, "root.verity": m.parts.verity, "uki.efi": m.parts.uki} {
		if err := linkOrCopy(path, m.path(name)); err != nil {
			return err
		}
	}
	if err := m.box.work(ctx, m.dir, job{epoch: diskEpoch, script: takeFiles, args: []string{m.arch.efi}}); err != nil {
		return fmt.Errorf("take files out of the root: %w", err)
	}
	return nil
}

// configFile is where a machine's first start, and an installer, look for a
// configuration on an ESP.
const configFile = "config.yaml"

// esp lays out the EFI system partition: the files of every medium, and more
// (name -> file in the directory).
func (m *medium) esp(more map[string]string) error {
	records, err := m.parts.records()
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(m.path("loader.conf"), []byte(loaderConf), 0o644),
		os.WriteFile(m.path("slots.json"), records, 0o644),
	); err != nil {
		return err
	}
	files := map[string]string{
		"EFI/BOOT/BOOT" + strings.ToUpper(m.arch.efi) + ".EFI": "image/systemd-boot.efi",
		"EFI/systemd/systemd-boot" + m.arch.efi + ".efi":       "image/systemd-boot.efi",
		"EFI/Linux/" + slots.FileName(firstGeneration, 0):      "uki.efi",
		"loader/loader.conf": "loader.conf",
		"kairos/slots.json":  "slots.json",
	}
	maps.Copy(files, more)
	if m.config != nil {
		if err := os.WriteFile(m.path(configFile), m.config, 0o600); err != nil {
			return err
		}
		files[configFile] = configFile
	}
	for name, from := range files {
		path := m.path("esp/" + name)
		data, err := os.ReadFile(m.path(from))
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			return fmt.Errorf("write ESP: %w", err)
		}
	}
	return filepath.WalkDir(m.path("esp"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, diskEpoch, diskEpoch)
	})
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
