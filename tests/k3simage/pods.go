package k3simage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// podArchives builds the sandbox image and the test server, one static program
// each, as archives that `ctr images import` takes. It takes a second.
func podArchives(ctx context.Context, root string) ([]string, error) {
	dir := filepath.Join(root, "build", "pod-images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the pod images: %w", err)
	}
	var out []string
	for _, image := range []string{PauseName, EchoName} {
		tag, err := name.NewTag(image)
		if err != nil {
			return nil, fmt.Errorf("make the image %s: %w", image, err)
		}
		archive, err := podArchive(ctx, root, filepath.Join(dir, filepath.Base(tag.RepositoryStr())), tag)
		if err != nil {
			return nil, fmt.Errorf("make the image %s: %w", image, err)
		}
		out = append(out, archive)
	}
	return out, nil
}

func podArchive(ctx context.Context, root, path string, tag name.Tag) (string, error) {
	img, err := programImage(ctx, run.Cmd{Dir: root, Env: []string{"CGO_ENABLED=0"}}, "./tests/k3simage/"+filepath.Base(path), path)
	if err != nil {
		return "", err
	}
	// Another `make` may read the archive right now: replace it whole.
	tmp := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
	if err := tarball.WriteToFile(tmp, tag, img); err != nil {
		return "", err
	}
	return path + ".tar", os.Rename(tmp, path+".tar")
}

// programImage builds a static program from source, which is as go build takes it, and
// returns an image of nothing else. c has the directory and the environment.
func programImage(ctx context.Context, c run.Cmd, source, file string) (v1.Image, error) {
	c.Args = []string{"nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, source}
	if _, err := run.Do(ctx, c); err != nil {
		return nil, err
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	program := strings.TrimSuffix(filepath.Base(file), ".program")
	layer, err := tarOf([]tarFile{{name: program, body: body}})
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Entrypoint: []string{"/" + program}}, layer)
}
