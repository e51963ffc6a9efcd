package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// dracut makes the larger part of the initrd out of the OS image: systemd, its
// tools for dm-verity and partitions, the kernel's modules for disks. $1 is the
// kernel's version, $2 the modules of the architecture for SHA-256. There is no
// dracut-systemd module, and so none of dracut's own hooks and shells: what happens
// is said by units alone.
const dracut = `
dracut --quiet --force --reproducible --no-hostonly --no-hostonly-cmdline --early-microcode --zstd \
	--modules "systemd systemd-initrd systemd-udevd systemd-modules-load systemd-veritysetup systemd-repart kernel-modules" \
	--filesystems "erofs ext4 vfat overlay" \
	--add-drivers "dm-verity $2 loop overlay nls_cp437 nls_ascii nls_iso8859-1" \
	--install "sh cat chmod cp grep ln losetup mkdir mount mv readlink rm sfdisk sleep sync umount e2fsck mke2fs mkfs.ext4 /usr/lib/systemd/systemd-growfs" \
	/run/out/initrd "$1"
`

// initrdEpoch is not the image's: an initrd is made anew for other packages only.
var initrdEpoch = time.Date(2025, time.August, 9, 0, 0, 0, 0, time.UTC)

// initrdInputs are what dracut reads of the OS image besides programs and modules,
// which are known by the versions of their packages.
var initrdInputs = []string{
	"var/lib/dpkg/status", "usr/lib/dracut", "etc/dracut.conf.d", "usr/lib/modprobe.d", "etc/modprobe.d", "usr/lib/modules-load.d",
	"usr/lib/sysctl.d", "usr/lib/udev/rules.d", "etc/udev",
}

// initrd returns the path of the initrd for the unpacked OS and the version of its
// kernel. It takes a quarter of a minute to make, so the cache keeps it.
func (b *build) initrd(ctx context.Context, kernel string) (string, error) {
	root, cache := b.path("os"), filepath.Dir(b.box.dir)
	key, err := initrdKey(root, kernel, b.arch.sha256)
	if err != nil {
		return "", fmt.Errorf("make initrd: %w", err)
	}
	done := filepath.Join(cache, "initrd-"+key)
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	tmp, err := os.MkdirTemp(cache, "initrd-new-")
	if err != nil {
		return "", fmt.Errorf("make initrd: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	j := job{
		root: root, tmpfs: []string{"/tmp", "/var/tmp", "/run"}, bind: map[string]string{"/run/out": tmp},
		epoch: initrdEpoch, script: dracut, args: []string{kernel, b.arch.sha256},
	}
	if err := j.run(ctx); err != nil {
		return "", fmt.Errorf("run dracut: %w", err)
	}
	if err := errors.Join(os.Chmod(filepath.Join(tmp, "initrd"), 0o644), os.Rename(filepath.Join(tmp, "initrd"), done)); err != nil {
		return "", fmt.Errorf("keep initrd: %w", err)
	}
	return done, nil
}

// initrdKey names everything that decides what dracut makes.
func initrdKey(root string, args ...string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, dracut, args)
	for _, input := range initrdInputs {
		err := filepath.WalkDir(filepath.Join(root, input), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			fmt.Fprintln(h, strings.TrimPrefix(path, root))
			_, err = io.Copy(h, f)
			return errors.Join(err, f.Close())
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}
