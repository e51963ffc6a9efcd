package builder

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
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
	Log      io.Writer
}

// OS builds the image that machines boot and returns its digest.
func OS(ctx context.Context, o OSOptions) (v1.Hash, error) {
	basePath, err := Base(ctx, o.Base)
	if err != nil {
		return v1.Hash{}, err
	}
	fmt.Fprintf(o.Log, "base layer: %s\n", basePath)
	base, err := tarball.LayerFromFile(basePath, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return v1.Hash{}, fmt.Errorf("read base layer: %w", err)
	}
	list, err := osFiles(o.Source.Version)
	if err != nil {
		return v1.Hash{}, err
	}
	files, err := layerOf(list)
	if err != nil {
		return v1.Hash{}, err
	}
	commands, err := programs{o.Source, o.Base.Arch, o.Compiler}.layer(ctx, CLI, Agent)
	if err != nil {
		return v1.Hash{}, err
	}
	img, err := assemble(describe{
		flavour: cmp.Or(o.Base.Flavour, Cloud), title: "kairos mesh OS", version: o.Source.Version, revision: o.Source.Revision,
		created: o.Source.Time, arch: o.Base.Arch,
		config: v1.Config{Entrypoint: []string{"/sbin/init"}, StopSignal: "SIGRTMIN+3", Env: []string{"container=oci"}},
	},
		part{base, "Debian " + Suite},
		part{files, "units and configuration"},
		part{commands, "kairos and kairos-agent"})
	if err != nil {
		return v1.Hash{}, err
	}
	return writeLayout(o.Out, o.Source.Version, img)
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
		// The first boot must not wait for somebody to answer its questions.
		&entry{name: "etc/systemd/system/systemd-firstboot.service", link: "/dev/null"},
		&entry{name: "usr/lib/os-release", mode: 0o644, data: osRelease(version)},
		&entry{name: "etc/containerd/conf.d", mode: 0o755, dir: true},
		&entry{name: "etc/containerd/certs.d", mode: 0o755, dir: true},
		&entry{name: "etc/cni", mode: 0o755, dir: true},
		&entry{name: "etc/cni/net.d", mode: 0o755, dir: true},
		&entry{name: "etc/kairos", mode: 0o700, dir: true},
		// Where the disk is mounted: the root is read-only there.
		&entry{name: "oem", mode: 0o700, dir: true},
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

// programs builds the layer of our own commands for one architecture.
type programs struct {
	source  Source
	arch    string
	compile Compiler // nil: GoBuild
}

func (p programs) layer(ctx context.Context, list ...Program) (v1.Layer, error) {
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
	return layerOf(entries)
}
