package builder

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kairos-io/kairos/systemd"
)

//go:embed all:root
var root embed.FS

// OSOptions say how the OS image is made.
type OSOptions struct {
	Out      string      // OCI layout to write
	Base     BaseOptions // its Arch is the image's
	Source   Source
	Compiler Compiler // nil: GoBuild
	Images   []Baked  // carried for machines without a registry
	Log      io.Writer
}

// OS builds the image that machines boot and returns its digest. Its bill of
// materials is in it (SBOMFile) and beside it (Out with .spdx.json).
func OS(ctx context.Context, o OSOptions) (v1.Hash, error) {
	what := describe{
		flavour: cmp.Or(o.Base.Flavour, Cloud), title: "kairos mesh OS", version: o.Source.Version, revision: o.Source.Revision,
		created: o.Source.Time, arch: o.Base.Arch,
		config: v1.Config{Entrypoint: []string{"/sbin/init"}, StopSignal: "SIGRTMIN+3", Env: []string{"container=oci"}},
	}
	basePath, err := Base(ctx, o.Base)
	if err != nil {
		return v1.Hash{}, err
	}
	fmt.Fprintf(o.Log, "base layer: %s\n", basePath)
	parts, contents, err := osParts(ctx, o, basePath)
	if err != nil {
		return v1.Hash{}, err
	}
	what.k3s = contents.k3s()
	commands, bill, err := commandsLayer(contents, what)
	if err != nil {
		return v1.Hash{}, err
	}
	if len(o.Images) > 0 {
		images, err := imagesLayer(contents.Images, o.Base.CacheDir)
		if err != nil {
			return v1.Hash{}, err
		}
		defer func() { _ = os.Remove(images.path) }()
		parts = append(parts, part{images, "images for machines without a registry"})
	}
	img, err := assemble(what, append(parts, part{commands, "kairos and kairos-agent"})...)
	if err != nil {
		return v1.Hash{}, err
	}
	digest, err := writeLayout(o.Out, o.Source.Version, img)
	if err != nil {
		return v1.Hash{}, err
	}
	return digest, writeSBOM(o.Out, map[string][]byte{"": bill})
}

// osParts makes the layers that change seldom, and collects what goes into all.
func osParts(ctx context.Context, o OSOptions, basePath string) (parts []part, c Contents, err error) {
	base, err := tarball.LayerFromFile(basePath, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, c, fmt.Errorf("read base layer: %w", err)
	}
	if c.Debian, err = debianPackages(basePath); err != nil {
		return nil, c, err
	}
	if c.Files, err = osFiles(o.Source.Version); err != nil {
		return nil, c, err
	}
	files, err := layerOf(c.Files)
	if err != nil {
		return nil, c, err
	}
	build := programs{o.Source, o.Base.Arch, o.Compiler}
	if c.Programs, err = build.build(ctx, CLI, Agent); err != nil {
		return nil, c, err
	}
	if c.Runtime, err = build.build(ctx, Containerd...); err != nil {
		return nil, c, err
	}
	runtime, err := layerOf(c.Runtime)
	if err != nil {
		return nil, c, err
	}
	c.Images, err = fetch(ctx, o.Images, o.Base)
	return []part{{base, "Debian " + Suite}, {runtime, "containerd"}, {files, "units and configuration"}}, c, err
}

// commandsLayer is our programs, and the bill of materials of the whole image.
func commandsLayer(c Contents, d describe) (v1.Layer, []byte, error) {
	c.Title, c.Version, c.Revision, c.Arch, c.Flavour, c.Time = d.title, d.version, d.revision, d.arch, string(d.flavour), d.created
	bill, err := SBOM(c)
	if err != nil {
		return nil, nil, err
	}
	layer, err := layerOf(append(slices.Clone(c.Programs), &entry{name: SBOMFile, mode: 0o644, data: bill}))
	return layer, bill, err
}

// osFiles is the middle layer: what we add to Debian, apart from programs.
func osFiles(version string) ([]*entry, error) {
	own, err := fs.Sub(root, "root")
	if err != nil {
		return nil, fmt.Errorf("list files of the image: %w", err)
	}
	list, err := addTree(nil, own, func(text []byte) []byte {
		return bytes.ReplaceAll(text, []byte("@PAUSE@"), []byte(Pause))
	})
	if err != nil {
		return nil, err
	}
	if list, err = addTree(list, systemd.Files(), nil); err != nil {
		return nil, err
	}
	links, err := systemd.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		list = append(list, &entry{name: l.Path, link: l.Target})
	}
	return append(list,
		// What a boot with a new /usr would bring up to date is so already.
		&entry{name: "etc/.updated", mode: 0o644},
		&entry{name: "var/.updated", mode: 0o644},
		// The first boot must not wait for somebody to answer its questions.
		&entry{name: "etc/systemd/system/systemd-firstboot.service", link: "/dev/null"},
		// A machine does not keep its initrd to come back to.
		&entry{name: "etc/systemd/system/dracut-shutdown.service", link: "/dev/null"},
		&entry{name: "usr/lib/os-release", mode: 0o644, data: osRelease(version)},
		&entry{name: "etc/containerd/conf.d", mode: 0o755, dir: true},
		&entry{name: "etc/containerd/certs.d", mode: 0o755, dir: true},
		&entry{name: "etc/cni", mode: 0o755, dir: true},
		&entry{name: "etc/cni/net.d", mode: 0o755, dir: true},
		&entry{name: "etc/kairos", mode: 0o700, dir: true},
		// Where the disk is mounted: the root is read-only there.
		&entry{name: "oem", mode: 0o700, dir: true},
		// Units that start before systemd-tmpfiles find it.
		&entry{name: "var/lib/kairos", mode: 0o755, dir: true},
		&entry{name: "efi", mode: 0o700, dir: true},
	), nil
}

// osRelease keeps Debian's ID, which cloud-init and others go by, and adds the
// fields that os-release(5) has for images.
func osRelease(version string) []byte {
	version = strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._-", r) {
			return r
		}
		return '-'
	}, strings.ToLower(version))
	return fmt.Appendf(nil, `PRETTY_NAME="kairos mesh %[1]s (Debian 13)"
NAME="kairos mesh"
ID=debian
VERSION_ID="13"
VERSION="13 (%[2]s)"
VERSION_CODENAME=%[2]s
VARIANT="kairos mesh"
VARIANT_ID=kairos
IMAGE_ID=kairos
IMAGE_VERSION=%[1]s
DEFAULT_HOSTNAME=kairos
HOME_URL="https://github.com/kairos-io/kairos"
`, version, Suite)
}

// programs builds commands for one architecture.
type programs struct {
	source  Source
	arch    string
	compile Compiler // nil: GoBuild
}

func (p programs) build(ctx context.Context, list ...Program) ([]*entry, error) {
	compile := p.compile
	if compile == nil {
		compile = GoBuild
	}
	var entries []*entry
	for _, program := range list {
		data, err := compile(ctx, p.source, program, p.arch)
		if err != nil {
			return nil, err
		}
		entries = append(entries, &entry{name: program.Path, mode: 0o755, data: data})
	}
	return entries, nil
}
