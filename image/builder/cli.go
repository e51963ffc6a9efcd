package builder

import (
	"context"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// CLIOptions say how the command line's image is made.
type CLIOptions struct {
	Out      string   // OCI layout to write
	Archs    []string // Go's names; more than one makes an index
	Source   Source
	Compiler Compiler // nil: GoBuild
}

// CLIImage builds the image that holds the kairos program and nothing else, and
// returns its digest; a bill of materials for each architecture is beside it. It needs no certificates: everything it speaks to proves
// itself by the mesh's own keys.
func CLIImage(ctx context.Context, o CLIOptions) (v1.Hash, error) {
	var images []v1.Image
	bills := map[string][]byte{}
	for _, arch := range o.Archs {
		img, bill, err := cliImage(ctx, o, arch)
		if err != nil {
			return v1.Hash{}, err
		}
		images, bills["."+arch] = append(images, img), bill
	}
	if len(images) == 0 {
		return v1.Hash{}, fmt.Errorf("build cli image: no architecture given")
	}
	digest, err := writeLayout(o.Out, o.Source.Version, images...)
	if err != nil {
		return v1.Hash{}, err
	}
	return digest, writeSBOM(o.Out, bills)
}

// cliImage builds the image for one architecture, and its bill of materials.
func cliImage(ctx context.Context, o CLIOptions, arch string) (v1.Image, []byte, error) {
	what := describe{
		title: "kairos", version: o.Source.Version, revision: o.Source.Revision,
		created: o.Source.Time, arch: arch,
		config: v1.Config{
			Entrypoint: []string{"/" + CLI.Path}, Cmd: []string{"--help"},
			Env: []string{"PATH=/usr/bin", "KAIROS_ABSTRACT_SOCKET=1"}, WorkingDir: "/",
		},
	}
	c := Contents{Files: []*entry{
		{name: "etc", mode: 0o755, dir: true},
		// Programs ask for the name behind a number, and for a place to write.
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/sbin/nologin\n")},
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\n")},
		{name: "run", mode: 0o755, dir: true},
		{name: "tmp", mode: 0o1777, dir: true},
	}}
	var err error
	if c.Programs, err = (programs{o.Source, arch, o.Compiler}).build(ctx, CLI); err != nil {
		return nil, nil, err
	}
	files, err := layerOf(c.Files)
	if err != nil {
		return nil, nil, err
	}
	commands, bill, err := commandsLayer(c, what)
	if err != nil {
		return nil, nil, err
	}
	img, err := assemble(what, part{files, "directories"}, part{commands, "kairos"})
	return img, bill, err
}
