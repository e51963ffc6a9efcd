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
// returns its digest. It needs no certificates: everything it speaks to proves
// itself by the mesh's own keys.
func CLIImage(ctx context.Context, o CLIOptions) (v1.Hash, error) {
	var images []v1.Image
	for _, arch := range o.Archs {
		commands, err := programs{o.Source, arch, o.Compiler}.layer(ctx, CLI)
		if err != nil {
			return v1.Hash{}, err
		}
		files, err := layerOf([]*entry{
			{name: "etc", mode: 0o755, dir: true},
			// Programs ask for the name behind a number, and for a place to write.
			{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/sbin/nologin\n")},
			{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\n")},
			{name: "run", mode: 0o755, dir: true},
			{name: "tmp", mode: 0o1777, dir: true},
		})
		if err != nil {
			return v1.Hash{}, err
		}
		img, err := assemble(describe{
			title: "kairos", version: o.Source.Version, revision: o.Source.Revision,
			created: o.Source.Time, arch: arch,
			config: v1.Config{
				Entrypoint: []string{"/" + CLI.Path}, Cmd: []string{"--help"},
				Env: []string{"PATH=/usr/bin"}, WorkingDir: "/",
			},
		}, part{files, "directories"}, part{commands, "kairos"})
		if err != nil {
			return v1.Hash{}, err
		}
		images = append(images, img)
	}
	if len(images) == 0 {
		return v1.Hash{}, fmt.Errorf("build cli image: no architecture given")
	}
	return writeLayout(o.Out, o.Source.Version, images...)
}
