package builder

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// whiteout is how a layer says that a file of a lower layer is gone.
const whiteout = ".wh."

// maxOwner is the largest user or group.
const maxOwner = 1<<32 - 2

// extractor applies tar entries to a directory. os.Root keeps every access
// inside of it, symlinks included.
type extractor struct {
	root    *os.Root
	limits  Limits
	bytes   int64
	entries int64
	read    int64 // bytes of tar
	dirs    []dirTime
}

// dirTime: a directory's time changes with every entry made in it, so it is set
// at the end.
type dirTime struct {
	name string
	time time.Time
}

func (x *extractor) entry(h *tar.Header, body io.Reader) error {
	if err := x.count(); err != nil {
		return err
	}
	if h.Uid < 0 || h.Gid < 0 || h.Uid > maxOwner || h.Gid > maxOwner {
		return fmt.Errorf("%w: owner %d:%d", ErrUnsafe, h.Uid, h.Gid) // the kernel takes -1 for "as it is"
	}
	name, err := safeName(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return nil
	}
	if hidden, ok := strings.CutPrefix(path.Base(name), whiteout); ok {
		switch {
		case hidden == "" || strings.HasPrefix(hidden, whiteout):
			return errors.New("opaque whiteouts are not supported")
		case hidden == "." || hidden == "..":
			return fmt.Errorf("%w: it would remove a directory above it", ErrUnsafe)
		}
		return x.root.RemoveAll(path.Join(path.Dir(name), hidden))
	}
	if err := x.clear(name, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return x.dir(name, h)
	case tar.TypeReg:
		return x.file(name, h, body)
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return x.owner(name, h)
	case tar.TypeLink:
		old, err := safeName(h.Linkname)
		if err != nil {
			return err
		}
		return x.root.Link(old, name)
	}
	return fmt.Errorf("%w: entry of type %q", ErrUnsafe, h.Typeflag)
}

// safeName accepts only names that stay inside on paper already.
func safeName(name string) (string, error) {
	if path.IsAbs(name) || strings.ContainsRune(name, 0) || slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("%w: path %q leads outside", ErrUnsafe, name)
	}
	return path.Clean(name), nil
}

// clear makes room for an entry: parents exist, and nothing else has its name.
// A directory stays when a directory comes.
func (x *extractor) clear(name string, dir bool) error {
	if err := x.parents(path.Dir(name)); err != nil {
		return err
	}
	old, err := x.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && dir && old.IsDir()) {
		return nil
	}
	if err != nil {
		return err
	}
	return x.root.RemoveAll(name)
}

// parents makes the directories that nobody has described. They count: a name
// may ask for thousands.
func (x *extractor) parents(dir string) error {
	if dir == "." {
		return nil
	}
	info, err := x.root.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("%w: %s is not a directory", ErrUnsafe, dir)
	case err == nil || !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := x.parents(path.Dir(dir)); err != nil {
		return err
	}
	if err := x.count(); err != nil {
		return err
	}
	return x.root.Mkdir(dir, 0o755)
}

// count counts something that will have a name.
func (x *extractor) count() error {
	if x.entries++; x.entries > x.limits.Entries {
		return fmt.Errorf("%w: more than %d files", ErrUnsafe, x.limits.Entries)
	}
	return nil
}

func (x *extractor) dir(name string, h *tar.Header) error {
	if err := x.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	x.dirs = append(x.dirs, dirTime{name, h.ModTime})
	f, err := x.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return finishFile(f, h)
}

func (x *extractor) file(name string, h *tar.Header, body io.Reader) error {
	if x.bytes += h.Size; x.bytes > x.limits.Bytes {
		return fmt.Errorf("%w: more than %d bytes", ErrUnsafe, x.limits.Bytes)
	}
	f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, body); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(finishFile(f, h), f.Close()); err != nil {
		return err
	}
	return x.root.Chtimes(name, h.ModTime, h.ModTime)
}

func (x *extractor) owner(name string, h *tar.Header) error {
	return ownerHint(x.root.Lchown(name, h.Uid, h.Gid))
}

// finishFile sets owner, then mode, then capabilities: each of them resets what
// comes after it.
func finishFile(f *os.File, h *tar.Header) error {
	if err := ownerHint(f.Chown(h.Uid, h.Gid)); err != nil {
		return err
	}
	if err := f.Chmod(h.FileInfo().Mode()); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			continue
		}
		if attr != "security.capability" && !strings.HasPrefix(attr, "user.") {
			return fmt.Errorf("%w: extended attribute %s", ErrUnsafe, attr)
		}
		if err := unix.Fsetxattr(int(f.Fd()), attr, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", attr, err)
		}
	}
	return nil
}

func ownerHint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w\nhint: run as root, files of an image have owners", err)
	}
	return err
}

// finish sets the times of directories, innermost first.
func (x *extractor) finish() error {
	for _, d := range slices.Backward(x.dirs) {
		err := x.root.Chtimes(d.name, d.time, d.time)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // removed by a later layer
			return err
		}
	}
	return nil
}
