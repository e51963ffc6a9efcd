package builder

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kairos-io/kairos/systemd"
)

// BaseOptions say how the base layer is made.
type BaseOptions struct {
	Arch     string    // Debian's name of the architecture; same as Go's for amd64 and arm64
	Flavour  Flavour   // empty: Cloud
	Mirrors  Mirrors   // where from
	CacheDir string    // keeps finished layers, one file per set of packages
	Tar      string    // if set: this root file system (tar or tar.gz) instead of mmdebstrap's
	Refresh  bool      // build it again although the cache has it
	Log      io.Writer // mmdebstrap's progress
}

// ErrMissingTool wraps the name of a program that is not installed.
var ErrMissingTool = errors.New("a program is missing")

// Base returns the path of the base layer, a normalised tar.gz, building it if
// the cache does not have it.
func Base(ctx context.Context, o BaseOptions) (string, error) {
	list, err := o.packages()
	if err != nil {
		return "", err
	}
	key, err := o.key(list)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(o.CacheDir, 0o755); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	unlock, err := Lock(ctx, o.CacheDir, "base-"+o.Arch+"-"+key)
	if err != nil {
		return "", err
	}
	defer unlock()
	done := filepath.Join(o.CacheDir, fmt.Sprintf("base-%s-%s.tar.gz", o.Arch, key))
	if _, err := os.Stat(done); err == nil && !o.Refresh {
		return done, nil
	}
	raw := o.Tar
	if raw == "" {
		raw = filepath.Join(o.CacheDir, fmt.Sprintf("raw-%d.tar", os.Getpid()))
		defer func() { _ = os.Remove(raw) }()
		if err := mmdebstrap(ctx, o, raw, list); err != nil {
			return "", err
		}
	}
	if err := normaliseFile(raw, done); err != nil {
		return "", err
	}
	return done, nil
}

// packages returns what the base layer is installed from.
func (o BaseOptions) packages() ([]string, error) {
	flavour := cmp.Or(o.Flavour, Cloud)
	archs, ok := kernels[flavour]
	if !ok {
		return nil, fmt.Errorf("make base layer: there is no flavour %q\nhint: %s or %s", flavour, Generic, Cloud)
	}
	kernel, ok := archs[o.Arch]
	if !ok {
		return nil, fmt.Errorf("make base layer: there is no kernel for the architecture %q\nhint: amd64 or arm64", o.Arch)
	}
	return slices.Concat(packages, kernel), nil
}

// key names everything that decides the layer's content, apart from how far
// Debian has moved.
func (o BaseOptions) key(list []string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, normaliserVersion, Suite, o.Arch, list, accounts, systemd.DistributionPresets())
	if o.Tar != "" {
		f, err := os.Open(o.Tar)
		if err != nil {
			return "", fmt.Errorf("open base tar: %w", err)
		}
		defer f.Close()
		if _, err := io.Copy(h, f); err != nil {
			return "", fmt.Errorf("read base tar: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func mmdebstrap(ctx context.Context, o BaseOptions, out string, list []string) error {
	return Install(ctx, Installation{
		Arch: o.Arch, Mirrors: o.Mirrors, Packages: list, Out: out, Log: o.Log,
		Options: []string{
			"--essential-hook=" + accountHook(accounts),
			"--customize-hook=" + presetHook(systemd.DistributionPresets()),
		},
	})
}

// Installation is a Debian system to be made by mmdebstrap.
type Installation struct {
	Arch     string // Debian's name
	Mirrors  Mirrors
	Packages []string // besides the essential ones
	Options  []string // more options of mmdebstrap
	Out      string   // a directory, or a file that ends in .tar
	Log      io.Writer
}

// Install makes it. A failure leaves nothing at Out.
func Install(ctx context.Context, i Installation) error {
	path, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return fmt.Errorf("%w: mmdebstrap\nhint: apt-get install mmdebstrap debian-archive-keyring, or give a root file system with --base-tar", ErrMissingTool)
	}
	args := append([]string{
		"--variant=essential",
		"--architectures=" + i.Arch,
		"--include=" + strings.Join(i.Packages, ","),
		`--aptopt=APT::Install-Recommends "false"`,
	}, i.Options...)
	for _, opt := range hostAptOptions(ctx) {
		args = append(args, "--aptopt="+opt)
	}
	args = append(args, Suite, i.Out)
	args = append(args, i.Mirrors.sources(Suite)...)
	cmd := exec.CommandContext(ctx, path, args...)
	// Programs that run during the installation honour it too: shadow's password
	// ages, Python's compiled modules.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(baseEpoch.Unix(), 10), "LC_ALL=C.UTF-8",
		// The kernel's installation makes no initrd: a release has its own.
		"INITRD=No")
	cmd.Stdout, cmd.Stderr = i.Log, i.Log
	if err := cmd.Run(); err != nil {
		return errors.Join(
			fmt.Errorf("run mmdebstrap for %s: %w\nhint: is %s reachable? another one: --mirror URL; another architecture needs qemu-user-static", i.Arch, err, i.Mirrors.Main),
			os.RemoveAll(i.Out))
	}
	return nil
}

// accountHook is a shell script that adds accounts to the root file system $1
// before the packages that would make them are installed.
func accountHook(list []account) string {
	var passwd, group, shadow, gshadow strings.Builder
	for _, a := range list {
		gid := 65534 // nogroup
		if a.group {
			gid = a.id
			fmt.Fprintf(&group, "%s:x:%d:\n", a.name, a.id)
			fmt.Fprintf(&gshadow, "%s:!::\n", a.name)
		}
		if a.home != "" {
			fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:/usr/sbin/nologin\n", a.name, a.id, gid, a.home)
			fmt.Fprintf(&shadow, "%s:!*:%d::::::\n", a.name, baseEpoch.Unix()/86400)
		}
	}
	return fmt.Sprintf(`printf '%%s' '%s' >>"$1/etc/passwd" && printf '%%s' '%s' >>"$1/etc/group" && printf '%%s' '%s' >>"$1/etc/shadow" && printf '%%s' '%s' >>"$1/etc/gshadow"`,
		passwd.String(), group.String(), shadow.String(), gshadow.String())
}

// presetHook is a shell script that turns on, in the root file system $1, the
// units that presets name. A machine's first boot would do the same, but a later
// image must not wait for another first boot. The files keep their names: their
// order among the distribution's is what they mean.
func presetHook(presets map[string]string) string {
	const dir = `"$1"/usr/lib/systemd/system-preset/`
	var write, remove strings.Builder
	for _, name := range slices.Sorted(maps.Keys(presets)) {
		fmt.Fprintf(&write, "printf '%%s' '%s' >%s%s && ", presets[name], dir, name)
		fmt.Fprintf(&remove, " && rm %s%s", dir, name)
	}
	return write.String() + `chroot "$1" systemctl --root=/ preset-all --preset-mode=enable-only` + remove.String()
}

// hostAptOptions: a machine without apt-config simply has no such settings.
func hostAptOptions(ctx context.Context) []string {
	dump, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire").Output()
	if err != nil {
		return nil
	}
	return aptOptions(string(dump))
}

// normaliseFile writes the normalised form of the tar src to dst, atomically.
func normaliseFile(src, dst string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("open base tar: %w", err)
	}
	defer in.Close()
	plain, err := decompress(in)
	if err != nil {
		return fmt.Errorf("read base tar: %w", err)
	}
	out, err := os.CreateTemp(filepath.Dir(dst), filepath.Base(dst)+".*")
	if err != nil {
		return fmt.Errorf("write base layer: %w", err)
	}
	defer func() {
		if err != nil {
			_ = out.Close()
			_ = os.Remove(out.Name())
		}
	}()
	zw, err := gzip.NewWriterLevel(out, 6)
	if err != nil {
		return err
	}
	if err := normalise(plain, zw); err != nil {
		return fmt.Errorf("normalise base tar: %w", err)
	}
	if err := errors.Join(zw.Close(), out.Chmod(0o644), out.Close()); err != nil {
		return fmt.Errorf("write base layer: %w", err)
	}
	return os.Rename(out.Name(), dst)
}

// decompress looks at the first bytes rather than at a file's name.
func decompress(f *os.File) (io.Reader, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return gzip.NewReader(f)
	}
	return f, nil
}
