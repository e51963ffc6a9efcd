// Program image builds the project's OCI images and unpacks them:
//
//	go run ./image os --out build/os
//	go run ./image cli --out build/cli
//	go run ./image release --layout build/os --out build/release
//	go run ./image sign --layout build/release --key key.pem
//	go run ./image disk --release build/release --out build/kairos.raw.zst
//	go run ./image iso --release build/release --out build/kairos.iso
//	go run ./image push build/release registry.example.org/os:v1
//	go run ./image unpack --layout build/os --out build/rootfs
//	go run ./image digest --layout build/os
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/kairos-io/kairos/image/builder"
)

const usage = `usage: image COMMAND [flags]

  os      build the OS image as an OCI layout
  release turn the OS image into a release: what nodes upgrade to (needs root)
  sign    sign what is in a layout, for os.verify_key
  disk    make a disk of a release, to be flashed (needs root)
  iso     make an installer of a release, for USB sticks and optical drives (needs root)
  cli     build the command line's image as an OCI layout
  push    copy a layout to a registry: a release or the command line's image
  unpack  turn an OCI layout into a root file system (needs root)
  digest  print the digest of an OCI layout

image COMMAND --help lists the flags.
`

// errUsage: flags were wrong and have been explained already.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{
		"os": runOS, "release": runRelease, "sign": runSign,
		"disk": runDisk, "iso": runISO, "cli": runCLI, "push": runPush, "unpack": runUnpack, "digest": runDigest,
	}
	if len(args) > 0 {
		if command, ok := commands[args[0]]; ok {
			return command(ctx, args[1:])
		}
	}
	fmt.Fprint(os.Stderr, usage)
	return errUsage
}

// parse reads flags and insists on the ones named in required.
func parse(fs *flag.FlagSet, args []string, required ...string) error {
	if err := fs.Parse(args); err != nil {
		return errUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "error: %s takes no arguments, got %q\n", fs.Name(), fs.Arg(0))
		return errUsage
	}
	for _, name := range required {
		if fs.Lookup(name).Value.String() == "" {
			fmt.Fprintf(os.Stderr, "error: %s needs --%s\n", fs.Name(), name)
			return errUsage
		}
	}
	return nil
}

func runOS(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("os", flag.ContinueOnError)
	out := fs.String("out", "", "OCI layout to write")
	arch := fs.String("arch", runtime.GOARCH, "amd64 or arm64")
	flavour := fs.String("flavour", string(builder.Cloud), "generic (hardware, with firmware) or cloud (virtual machines)")
	baseTar := fs.String("base-tar", "", "root file system (tar, tar.gz) to use instead of running mmdebstrap")
	cache := fs.String("cache", "", "where base layers are kept (default build/cache in the module)")
	refresh := fs.Bool("refresh", false, "run mmdebstrap even if the base layer is in the cache")
	mirror := fs.String("mirror", "", "Debian archive (default: $KAIROS_MIRROR, this machine's apt sources, "+builder.Mirror+")")
	security := fs.String("security-mirror", "", "Debian security archive, or none (default: $KAIROS_SECURITY_MIRROR, apt sources, "+builder.SecurityMirror+")")
	bin := fs.String("bin-dir", "", "take the programs (kairos, kairos-agent, containerd, containerd-shim-runc-v2, ctr) from here instead of building them")
	var images []builder.Baked
	fs.Func("with-images", "carry an image for machines without a registry: [NAME=]REFERENCE, where oci:/DIR is a layout on disk; may be repeated", func(s string) error {
		image, err := builder.ParseBaked(s)
		images = append(images, image)
		return err
	})
	addons := fs.Bool("with-k3s-addons", false, "carry all that a cluster without a registry needs: k3s, the sandbox image of pods, and the images of k3s' add-ons")
	given := sourceFlags(fs)
	if err := parse(fs, args, "out"); err != nil {
		return err
	}
	if *addons {
		var err error
		if images, err = builder.WithAddons(images); err != nil {
			return err
		}
	}
	source, err := source(ctx, *given)
	if err != nil {
		return err
	}
	mirrors, err := builder.FindMirrors(builder.Mirrors{Main: *mirror, Security: *security}, os.Getenv, "/etc/apt")
	if err != nil {
		return err
	}
	if *cache == "" {
		*cache = filepath.Join(source.Dir, "build", "cache")
	}
	compile := builder.GoBuild
	if *bin != "" {
		compile = builder.Prebuilt(*bin)
	}
	digest, err := builder.OS(ctx, builder.OSOptions{
		Out: *out, Compiler: compile, Images: images,
		Base: builder.BaseOptions{
			Arch: *arch, Flavour: builder.Flavour(*flavour), Mirrors: mirrors, CacheDir: *cache, Tar: *baseTar, Refresh: *refresh, Log: os.Stderr,
		},
		Source: source,
		Log:    os.Stderr,
	})
	return report(os.Stdout, digest, err)
}

func runCLI(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("cli", flag.ContinueOnError)
	out := fs.String("out", "", "OCI layout to write")
	archs := fs.String("arch", "amd64,arm64", "architectures, separated by commas; several make an index")
	given := sourceFlags(fs)
	if err := parse(fs, args, "out", "arch"); err != nil {
		return err
	}
	source, err := source(ctx, *given)
	if err != nil {
		return err
	}
	digest, err := builder.CLIImage(ctx, builder.CLIOptions{Out: *out, Archs: strings.Split(*archs, ","), Source: source})
	return report(os.Stdout, digest, err)
}

func runUnpack(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("unpack", flag.ContinueOnError)
	dir := fs.String("layout", "", "OCI layout to read")
	out := fs.String("out", "", "directory to make")
	arch := fs.String("arch", "", "which image of an index (default: this machine's)")
	if err := parse(fs, args, "layout", "out"); err != nil {
		return err
	}
	return builder.Unpack(builder.UnpackOptions{Layout: *dir, Out: *out, Arch: *arch})
}

func runDigest(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("digest", flag.ContinueOnError)
	dir := fs.String("layout", "", "OCI layout to read")
	if err := parse(fs, args, "layout"); err != nil {
		return err
	}
	digest, err := builder.Digest(*dir)
	return report(os.Stdout, digest, err)
}

func report(w io.Writer, digest any, err error) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, digest)
	return err
}

func sourceFlags(fs *flag.FlagSet) *builder.Source {
	s := new(builder.Source)
	fs.StringVar(&s.Version, "version", "", "version to build in (default: git describe)")
	fs.StringVar(&s.Revision, "revision", "", "commit to name in the labels (default: git's)")
	return s
}

// source finds the module that this program belongs to, from wherever in it the
// program is run.
func source(ctx context.Context, given builder.Source) (builder.Source, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return builder.Source{}, fmt.Errorf("find the module: %w\nhint: run this inside of the source tree", err)
	}
	given.Dir = strings.TrimSpace(string(out))
	return builder.FindSource(ctx, given, os.Getenv)
}
