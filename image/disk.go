package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/image/disk"
)

func runRelease(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("release", flag.ContinueOnError)
	layout := fs.String("layout", "", "OCI layout of the OS image")
	out := fs.String("out", "", "OCI layout to write")
	arch := fs.String("arch", runtime.GOARCH, "amd64 or arm64")
	extra := fs.String("extra", "", "directory with files to put over the image's")
	more := fs.String("command-line", "", "more words for the kernel, separated by spaces")
	version := fs.String("version", "", "version of the release (default: the image's)")
	fast := fs.Bool("fast", false, "compress for speed: larger, for tests")
	box := toolboxFlags(fs)
	if err := parse(fs, args, "layout", "out"); err != nil {
		return err
	}
	options, err := box(ctx)
	if err != nil {
		return err
	}
	digest, err := disk.Release(ctx, disk.ReleaseOptions{
		Layout: *layout, Arch: *arch, Extra: *extra, CommandLine: strings.Fields(*more),
		Version: *version, Fast: *fast, Out: *out, Toolbox: options,
	})
	return report(os.Stdout, digest, err)
}

func runDisk(ctx context.Context, args []string) error { return runMedium(ctx, "disk", disk.Raw, args) }

func runISO(ctx context.Context, args []string) error { return runMedium(ctx, "iso", disk.ISO, args) }

func runMedium(ctx context.Context, name string, write func(context.Context, disk.MediumOptions) error, args []string) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	release := fs.String("release", "", "OCI layout of a release")
	out := fs.String("out", "", "file to write; one that ends in .zst is compressed")
	arch := fs.String("arch", runtime.GOARCH, "amd64 or arm64")
	from := fs.String("config", "", "cloud-config that machines started from it get; the medium is as secret as that")
	box := toolboxFlags(fs)
	if err := parse(fs, args, "release", "out"); err != nil {
		return err
	}
	config, err := readConfig(os.Stderr, *from)
	if err != nil {
		return err
	}
	options, err := box(ctx)
	if err != nil {
		return err
	}
	return write(ctx, disk.MediumOptions{Release: *release, Arch: *arch, Config: config, Out: *out, Toolbox: options})
}

// readConfig reads a configuration and refuses what a machine would refuse. Without
// a file it is nil.
func readConfig(warn io.Writer, file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	loaded, err := config.CheckText(file, text)
	if err != nil {
		return nil, fmt.Errorf("check the configuration: %w", err)
	}
	for _, w := range loaded.Warnings {
		fmt.Fprintln(warn, "warning:", w)
	}
	return text, nil
}

// toolboxFlags returns a function that reads them after parsing.
func toolboxFlags(fs *flag.FlagSet) func(context.Context) (disk.ToolboxOptions, error) {
	cache := fs.String("cache", "", "where tools and initrds are kept (default build/cache in the module)")
	mirror := fs.String("mirror", "", "Debian archive for the tools (default: as for the OS image)")
	return func(ctx context.Context) (disk.ToolboxOptions, error) {
		mirrors, err := builder.FindMirrors(builder.Mirrors{Main: *mirror}, os.Getenv, "/etc/apt")
		if err != nil {
			return disk.ToolboxOptions{}, err
		}
		dir := *cache
		if dir == "" {
			source, err := source(ctx, builder.Source{Version: "unused", Revision: "unused"})
			if err != nil {
				return disk.ToolboxOptions{}, fmt.Errorf("%w\nhint: or say where to keep tools, with --cache", err)
			}
			dir = filepath.Join(source.Dir, "build", "cache")
		}
		return disk.ToolboxOptions{CacheDir: dir, Mirrors: mirrors, Log: os.Stderr}, nil
	}
}
