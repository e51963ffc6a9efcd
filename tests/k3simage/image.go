package k3simage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/tests/internal/run"
)

// Images is everything a machine of a test needs to run Kubernetes.
type Images struct {
	Layout   string   // OCI layout directory that holds the k3s image alone
	Digest   string   // digest of the k3s image: sha256:...
	Archives []string // docker archives to import into containerd's k8s.io
	Binary   string   // the bare k3s program, for a start by hand
}

// Names of the images in Archives. The OS image names the sandbox image of
// pods; there is nothing to pull it from here, so ours takes its place.
const (
	PauseName = builder.Pause
	EchoName  = "docker.io/test/echo:1"
)

const (
	suite = builder.Suite
	// layoutVersion changes when the way the image is put together does.
	layoutVersion = "1"
)

// basePackages is what kube-proxy and kubelet call at run time.
var basePackages = []string{
	"base-files", "dash", "coreutils", "findutils", "grep", "sed", "mawk", "procps", "util-linux", "mount", "kmod",
	"iproute2", "iptables", "ipset", "conntrack", "ethtool", "socat",
}

// links is what the k3s image has beside the packages and k3s itself. The
// packages are unpacked without their scripts, so the links that Debian's
// alternatives would set are set here.
var links = map[string]string{
	"usr/bin/kubectl": "k3s", "usr/bin/crictl": "k3s", "usr/bin/ctr": "k3s",
	"usr/bin/awk":                "mawk",
	"usr/sbin/iptables":          "iptables-nft",
	"usr/sbin/iptables-save":     "iptables-nft-save",
	"usr/sbin/iptables-restore":  "iptables-nft-restore",
	"usr/sbin/ip6tables":         "ip6tables-nft",
	"usr/sbin/ip6tables-save":    "ip6tables-nft-save",
	"usr/sbin/ip6tables-restore": "ip6tables-nft-restore",
}

// Build makes whatever is not made yet and returns where it all is. Progress
// goes to log.
func Build(ctx context.Context, root string, log io.Writer) (Images, error) {
	binary, err := Binary(ctx, root, log)
	if err != nil {
		return Images{}, err
	}
	archives, err := podArchives(ctx, root)
	if err != nil {
		return Images{}, err
	}
	key, err := hashOf(nil, filepath.Base(binary), suite, strings.Join(basePackages, " "), fmt.Sprint(links), layoutVersion)
	if err != nil {
		return Images{}, err
	}
	dir := filepath.Join(root, "build", "cache", "k3s-image-"+key)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(log, "packing the k3s image")
		if err := pack(ctx, binary, dir); err != nil {
			return Images{}, fmt.Errorf("pack the k3s image: %w", err)
		}
	} else if err != nil {
		return Images{}, fmt.Errorf("look for the k3s image: %w", err)
	}
	digest, err := layoutDigest(dir)
	if err != nil {
		return Images{}, err
	}
	return Images{Layout: dir, Digest: digest, Archives: archives, Binary: binary}, nil
}

func pack(ctx context.Context, binary, dir string) error {
	tmp := fmt.Sprintf("%s.%d.tmp", dir, os.Getpid())
	defer os.RemoveAll(tmp)
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	base := filepath.Join(tmp, "base.tar")
	_, err := run.Do(ctx, run.Cmd{
		Args: []string{"mmdebstrap", "--variant=extract", "--include=" + strings.Join(basePackages, ","),
			"--aptopt=APT::Install-Recommends \"false\"", suite, base},
		Env: []string{"SOURCE_DATE_EPOCH=1"},
	})
	if err != nil {
		return err
	}
	top, err := programLayer(binary)
	if err != nil {
		return err
	}
	img, err := assemble(v1.Config{
		Entrypoint: []string{"/bin/k3s"},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}, func() (io.ReadCloser, error) { return os.Open(base) }, top)
	if err != nil {
		return err
	}
	path, err := layout.Write(filepath.Join(tmp, "layout"), empty.Index)
	if err != nil {
		return err
	}
	err = path.AppendImage(img, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": strings.ReplaceAll(Version, "+", "-"),
	}))
	if err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, "layout"), dir)
}

// assemble makes an image of layers; gzip is fast rather than tight, as the
// result is read back on the same machine.
func assemble(config v1.Config, layers ...tarball.Opener) (v1.Image, error) {
	img, err := mutate.Config(empty.Image, config)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, err
	}
	for _, open := range layers {
		layer, err := tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestSpeed))
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// programLayer is k3s and the links, as a tar.
func programLayer(binary string) (tarball.Opener, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	files := []tarFile{{name: "usr/bin/k3s", body: program}}
	for _, name := range slices.Sorted(maps.Keys(links)) {
		files = append(files, tarFile{name: name, link: links[name]})
	}
	return tarOf(files)
}

type tarFile struct {
	name string
	body []byte
	link string
}

func tarOf(files []tarFile) (tarball.Opener, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.body)), Typeflag: tar.TypeReg}
		if f.link != "" {
			h = &tar.Header{Name: f.name, Mode: 0o777, Linkname: f.link, Typeflag: tar.TypeSymlink}
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }, nil
}

func layoutDigest(dir string) (string, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return "", fmt.Errorf("read the k3s image: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", fmt.Errorf("read the k3s image: %w", err)
	}
	if len(manifest.Manifests) != 1 {
		return "", fmt.Errorf("read the k3s image: %d images in %s, want 1", len(manifest.Manifests), dir)
	}
	return manifest.Manifests[0].Digest.String(), nil
}
