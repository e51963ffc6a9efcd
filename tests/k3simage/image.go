package k3simage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
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
	layoutVersion = "2"
)

// basePackages is what kube-proxy and kubelet call at run time.
var basePackages = []string{"busybox-static", "iptables", "ipset", "conntrack", "ethtool", "socat"}

// The image is laid out like rancher/k3s: from scratch, with a static busybox, the packet
// filter's programs in /bin/aux alone and behind a script that chooses between the old and
// the new ones, a /var/run of its own and nothing that tells a distribution. What differs:
// those programs are Debian's, which want their libraries.

// places is where files of the packages go: a path, or all below a directory.
var places = []struct{ from, to string }{
	{"usr/bin/busybox", "bin/busybox"},
	{"usr/sbin/xtables-legacy-multi", "bin/aux/xtables-legacy-multi"},
	{"usr/sbin/xtables-nft-multi", "bin/aux/xtables-nft-multi"},
	{"usr/sbin/ipset", "bin/ipset"},
	{"usr/sbin/conntrack", "bin/conntrack"},
	{"usr/sbin/ethtool", "bin/ethtool"},
	{"usr/bin/socat", "bin/socat"},
	{"usr/lib64/", "usr/lib64/"},
	{"usr/lib/", "usr/lib/"},
}

// applets are busybox's.
var applets = strings.Fields("[ awk basename cat chmod cp cut date dirname echo env expr false find grep head hostname id ip kill ln ls lsmod mkdir mknod " +
	"modprobe mount mv nsenter pidof ps readlink rm rmdir sed sh sleep sort stat sysctl tail tar test touch tr true umount uname uniq wc which xargs")

// detect stands for the script that chooses the packet filter's kind by the rules that
// there are, and takes the old one where there are none: unless it is told.
const detect = `#!/bin/sh
exec /bin/aux/xtables-${IPTABLES_MODE:-legacy}-multi "${0##*/}" "$@"
`

// ownFiles is what the image has beside the packages and k3s itself.
func ownFiles() []tarFile {
	files := []tarFile{
		{name: "var/run/", dir: true}, {name: "tmp/", dir: true}, {name: "etc/", dir: true},
		{name: "etc/nsswitch.conf", body: []byte("hosts: files dns\n")},
		{name: "bin/aux/iptables-detect.sh", body: []byte(detect)},
		{name: "lib", link: "usr/lib"}, {name: "lib64", link: "usr/lib64"},
	}
	for _, name := range []string{"kubectl", "crictl", "ctr"} {
		files = append(files, tarFile{name: "bin/" + name, link: "k3s"})
	}
	for _, name := range applets {
		files = append(files, tarFile{name: "bin/" + name, link: "busybox"})
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, what := range []string{"", "-save", "-restore"} {
			files = append(files, tarFile{name: "bin/aux/" + family + what, link: "iptables-detect.sh"})
		}
	}
	return files
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
	key, err := hashOf(nil, filepath.Base(binary), suite, strings.Join(basePackages, " "), fmt.Sprint(places, ownFiles()), layoutVersion)
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
	if err := Extract(ctx, base, basePackages...); err != nil {
		return err
	}
	top, err := programLayer(binary)
	if err != nil {
		return err
	}
	tools := filepath.Join(tmp, "tools.tar")
	if err := rearrange(base, tools); err != nil {
		return err
	}
	img, err := assemble(v1.Config{
		Entrypoint: []string{"/bin/k3s"},
		Cmd:        []string{"agent"},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/bin/aux",
			"CRI_CONFIG_FILE=/var/lib/rancher/k3s/agent/etc/crictl.yaml"},
	}, func() (io.ReadCloser, error) { return os.Open(tools) }, top)
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

// Extract unpacks packages of the OS image's Debian and what they depend on, without their
// scripts, into a directory, or into a tar if out is called so.
func Extract(ctx context.Context, out string, packages ...string) error {
	_, err := run.Do(ctx, run.Cmd{
		Args: []string{"mmdebstrap", "--variant=extract", "--include=" + strings.Join(packages, ","),
			"--aptopt=APT::Install-Recommends \"false\"", suite, out},
		Env: []string{"SOURCE_DATE_EPOCH=1"},
	})
	return err
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

// rearrange writes a tar with the files of another that have a place in the image.
func rearrange(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	r, w := tar.NewReader(in), tar.NewWriter(out)
	left := len(places)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name, once := placeOf(strings.TrimPrefix(h.Name, "./"))
		if name == "" {
			continue
		}
		if once {
			left--
		}
		h.Name, h.Linkname = name, strings.TrimPrefix(h.Linkname, "./")
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
	if left != 2 { // the directories
		return fmt.Errorf("%d files of %v are in no package", left-2, places)
	}
	return w.Close()
}

// placeOf is where a file of the packages goes in the image, "" for nowhere; once says
// that it is one that is named.
func placeOf(name string) (place string, once bool) {
	for _, p := range places {
		if name == p.from {
			return p.to, !strings.HasSuffix(p.from, "/")
		}
		if rest, below := strings.CutPrefix(name, p.from); below && strings.HasSuffix(p.from, "/") {
			return p.to + rest, false
		}
	}
	return "", false
}

// programLayer is k3s and what else is ours, as a tar.
func programLayer(binary string) (tarball.Opener, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	return tarOf(append(ownFiles(), tarFile{name: "bin/k3s", body: program}))
}

type tarFile struct {
	name string
	body []byte
	link string
	dir  bool
}

func tarOf(files []tarFile) (tarball.Opener, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.body)), Typeflag: tar.TypeReg}
		switch {
		case f.dir:
			h.Typeflag = tar.TypeDir
		case f.link != "":
			h.Mode, h.Linkname, h.Typeflag = 0o777, f.link, tar.TypeSymlink
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
