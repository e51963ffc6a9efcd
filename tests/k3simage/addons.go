package k3simage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// Addon is an image of what k3s deploys itself.
type Addon struct {
	Name   string // as the manifests of the k3s of these tests call it
	Layout string // OCI layout directory that holds it alone
}

// addons are the programs that the k3s which machines run by default deploys (tests/addons
// pins them), under the names that the k3s of these tests has for its own.
var addons = []struct{ source, name string }{
	{"github.com/coredns/coredns", "docker.io/rancher/mirrored-coredns-coredns:1.9.4"},
	{"sigs.k8s.io/metrics-server/cmd/metrics-server", "docker.io/rancher/mirrored-metrics-server:v0.6.1"},
}

// Addons builds them from source. Cold it takes about five CPU-minutes; unchanged inputs
// take no time.
func Addons(ctx context.Context, root string, log io.Writer) ([]Addon, error) {
	mod := filepath.Join(root, "tests", "addons")
	env := []string{"CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false", "GOTOOLCHAIN=local"}
	goVersion, err := run.Do(ctx, run.Cmd{Args: []string{"go", "env", "GOVERSION"}, Dir: mod, Env: env})
	if err != nil {
		return nil, err
	}
	key, err := hashOf([]string{filepath.Join(mod, "go.mod"), filepath.Join(mod, "go.sum")}, goVersion, fmt.Sprint(addons), layoutVersion)
	if err != nil {
		return nil, fmt.Errorf("key the build of k3s' add-ons: %w", err)
	}
	dir := filepath.Join(root, "build", "cache", "addons-"+key)
	var out []Addon
	for _, a := range addons {
		out = append(out, Addon{a.name, filepath.Join(dir, filepath.Base(a.source))})
	}
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return out, err
	}
	fmt.Fprintln(log, "building k3s' add-ons from source (about 3 minutes on 2 cores the first time)")
	tmp := fmt.Sprintf("%s.%d.tmp", dir, os.Getpid())
	defer os.RemoveAll(tmp)
	for _, a := range addons {
		if err := addonLayout(ctx, run.Cmd{Dir: mod, Env: env}, a.source, filepath.Join(tmp, filepath.Base(a.source))); err != nil {
			return nil, fmt.Errorf("build %s: %w", a.source, err)
		}
	}
	return out, os.Rename(tmp, dir)
}

// addonLayout builds a program and makes an image of nothing else.
func addonLayout(ctx context.Context, c run.Cmd, source, dir string) error {
	file := dir + ".program"
	img, err := programImage(ctx, c, source, file)
	if err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return errors.Join(path.AppendImage(img), os.Remove(file))
}
