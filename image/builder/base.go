package builder

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// BaseOptions say how the base layer is made.
type BaseOptions struct {
	Arch     string    // Debian's name of the architecture; same as Go's for amd64 and arm64
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
	key, err := o.key()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(o.CacheDir, 0o755); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	done := filepath.Join(o.CacheDir, fmt.Sprintf("base-%s-%s.tar.gz", o.Arch, key))
	if _, err := os.Stat(done); err == nil && !o.Refresh {
		return done, nil
	}
	raw := o.Tar
	if raw == "" {
		raw = filepath.Join(o.CacheDir, fmt.Sprintf("raw-%d.tar", os.Getpid()))
		defer func() { _ = os.Remove(raw) }()
		if err := mmdebstrap(ctx, o, raw); err != nil {
			return "", err
		}
	}
	if err := normaliseFile(raw, done); err != nil {
		return "", err
	}
	return done, nil
}

// key names everything that decides the layer's content, apart from how far
// Debian has moved.
func (o BaseOptions) key() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, normaliserVersion, Suite, o.Arch, packages)
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

func mmdebstrap(ctx context.Context, o BaseOptions, out string) error {
	path, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return fmt.Errorf("%w: mmdebstrap\nhint: apt-get install mmdebstrap debian-archive-keyring, or give a root file system with --base-tar", ErrMissingTool)
	}
	args := []string{
		"--variant=essential",
		"--architectures=" + o.Arch,
		"--include=" + strings.Join(packages, ","),
		`--aptopt=APT::Install-Recommends "false"`,
	}
	for _, opt := range hostAptOptions(ctx) {
		args = append(args, "--aptopt="+opt)
	}
	args = append(args, Suite, out)
	args = append(args, o.Mirrors.sources(Suite)...)
	cmd := exec.CommandContext(ctx, path, args...)
	// Programs that run during the installation honour it too: shadow's password
	// ages, Python's compiled modules.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(baseEpoch.Unix(), 10), "LC_ALL=C.UTF-8")
	cmd.Stdout, cmd.Stderr = o.Log, o.Log
	if err := cmd.Run(); err != nil {
		_ = os.Remove(out)
		return fmt.Errorf("run mmdebstrap for %s: %w\nhint: is %s reachable? another one: --mirror URL; another architecture needs qemu-user-static", o.Arch, err, o.Mirrors.Main)
	}
	return nil
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
