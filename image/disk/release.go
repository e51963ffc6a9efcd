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

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/image/release"
)

// ReleaseOptions say what a release is made of.
type ReleaseOptions struct {
	Layout      string   // OCI layout of the OS image
	Arch        string   // empty: this machine's
	Extra       string   // a directory whose files are put over the image's, or empty
	CommandLine []string // more words for the kernel
	Fast        bool     // compress for speed instead of size
	Version     string   // empty: the image's
	Out         string   // OCI layout to write
	Toolbox     ToolboxOptions
}

// sbomFile is where an OS image has its bill of materials.
const sbomFile = builder.SBOMFile

// Release makes a release of an OS image and returns the digest of its index. It
// is a function of the image and the options.
func Release(ctx context.Context, o ReleaseOptions) (v1.Hash, error) {
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	box, err := OpenToolbox(ctx, o.Toolbox)
	if err != nil {
		return v1.Hash{}, err
	}
	container, err := builder.Image(o.Layout, o.Arch)
	if err != nil {
		return v1.Hash{}, err
	}
	b := &build{ReleaseOptions: o, box: box}
	if b.arch, err = findArch(o.Arch); err != nil {
		return v1.Hash{}, err
	}
	if b.config, b.epoch, err = describe(container, o); err != nil {
		return v1.Hash{}, err
	}
	if b.uuid, err = rootUUID(container, o); err != nil {
		return v1.Hash{}, fmt.Errorf("make release: %w", err)
	}
	if b.dir, err = os.MkdirTemp(filepath.Dir(box.dir), "release-new-"); err != nil {
		return v1.Hash{}, fmt.Errorf("make release: %w", err)
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	for _, step := range []func(context.Context) error{b.tree, b.sbom, b.filesystem, b.verity, b.uki} {
		if err := step(ctx); err != nil {
			return v1.Hash{}, fmt.Errorf("make release: %w", err)
		}
	}
	index, err := release.Index(release.Source{
		Config: b.config, Container: container,
		Root: b.path("root.erofs"), Verity: b.path("root.verity"), UKI: b.path("uki.efi"), SBOM: b.path("sbom.json"),
	})
	if err != nil {
		return v1.Hash{}, err
	}
	return builder.WriteLayout(o.Out, b.config.Version, index)
}

// describe reads from an image's labels what its release is.
func describe(image v1.Image, o ReleaseOptions) (release.Config, time.Time, error) {
	file, err := image.ConfigFile()
	if err != nil {
		return release.Config{}, time.Time{}, fmt.Errorf("read image: %w", err)
	}
	labels := file.Config.Labels
	c := release.Config{
		Version: labels["org.opencontainers.image.version"], Arch: o.Arch,
		Flavour: labels[builder.FlavourLabel], Revision: labels["org.opencontainers.image.revision"],
		K3s:     labels[builder.K3sLabel],
		Created: file.Created.UTC(),
	}
	if o.Version != "" {
		c.Version = o.Version
	}
	if c.Flavour == "" {
		return release.Config{}, time.Time{}, fmt.Errorf("read image %s: it has no label %s\nhint: make it with `image os`", o.Layout, builder.FlavourLabel)
	}
	return c, file.Created.Time, nil
}

// build is a release while it is made.
type build struct {
	ReleaseOptions
	box    *Toolbox
	arch   arch
	dir    string // what is in the making
	config release.Config
	epoch  time.Time // the image's: no file is younger
	uuid   string    // of the root's file system
}

func (b *build) path(name string) string { return filepath.Join(b.dir, name) }

// tree unpacks the image.
func (b *build) tree(context.Context) error {
	if err := builder.Unpack(builder.UnpackOptions{Layout: b.Layout, Out: b.path("os"), Arch: b.Arch}); err != nil {
		return err
	}
	// systemd takes this file's time for the earliest that it can be.
	clock := filepath.Join(b.path("os"), "usr/lib/clock-epoch")
	if err := errors.Join(os.WriteFile(clock, nil, 0o644), os.Chtimes(clock, b.epoch, b.epoch)); err != nil {
		return err
	}
	if b.Extra == "" {
		return nil
	}
	return overlay(b.Extra, b.path("os"))
}

func (b *build) sbom(context.Context) error {
	data, err := os.ReadFile(filepath.Join(b.path("os"), sbomFile))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the image has no bill of materials (%s)\nhint: make it with `image os`", sbomFile)
	}
	if err != nil {
		return fmt.Errorf("read bill of materials: %w", err)
	}
	return os.WriteFile(b.path("sbom.json"), data, 0o644)
}

// rootUUID is different for roots of different content. The overlay over /etc
// remembers which file of the image a changed one was, by the UUID of the image's
// file system and the file's number in it. Under another release that number is
// another file: with the same UUID overlayfs would take it for the one it knew, and
// answer EIO where one is a directory and the other is not.
func rootUUID(container v1.Image, o ReleaseOptions) (string, error) {
	digest, err := container.Digest()
	if err != nil {
		return "", fmt.Errorf("read image: %w", err)
	}
	extra, err := treeSum(o.Extra)
	if err != nil {
		return "", fmt.Errorf("read extra files: %w", err)
	}
	return derivedUUID(strings.Join([]string{"root", digest.String(), o.Version, extra}, " ")), nil
}

// makeRoot: the kernel is in the UKI. What else is in /boot stays: by that
// systemd-gpt-auto-generator knows to mount the ESP at /efi. No file is younger
// than the image.
const makeRoot = `
mkfs.erofs --quiet -z"$1" -C65536 -Eztailpacking -T"$SOURCE_DATE_EPOCH" \
	-U "$2" --exclude-regex='^boot/vmlinuz-' root.erofs /os
`

func (b *build) filesystem(ctx context.Context) error {
	compression := "zstd,level=6"
	if b.Fast {
		compression = "lz4"
	}
	err := b.box.work(ctx, b.dir, job{bind: map[string]string{"/os": b.path("os")}, epoch: b.epoch, script: makeRoot, args: []string{compression, b.uuid}})
	if err != nil {
		return fmt.Errorf("run mkfs.erofs: %w", err)
	}
	return nil
}

// makeVerity: with a salt and a UUID that are always the same, equal roots have
// equal hashes.
const makeVerity = `
veritysetup format --salt="$1" --uuid=c0ffee00-6b61-4972-8f73-000000000002 --root-hash-file=roothash root.erofs root.verity
chmod 0644 root.verity
`

func (b *build) verity(ctx context.Context) error {
	if err := b.box.work(ctx, b.dir, job{epoch: b.epoch, script: makeVerity, args: []string{strings.Repeat("0", 64)}}); err != nil {
		return fmt.Errorf("run veritysetup: %w", err)
	}
	hash, err := os.ReadFile(b.path("roothash"))
	if err != nil {
		return fmt.Errorf("read root hash: %w", err)
	}
	b.config.RootHash = strings.TrimSpace(string(hash))
	return b.config.Validate()
}
