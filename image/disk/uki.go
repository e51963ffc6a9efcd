package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/image/release"
)

// osRelease is what the boot loader sees of a UKI. There is no version in it, so
// that entries are ordered by their file names: by generation.
const osRelease = `ID=kairos
NAME="kairos mesh"
PRETTY_NAME="kairos mesh"
`

// initrdFiles is the directory of the OS image with our own files of the initrd.
const initrdFiles = "usr/lib/kairos/initrd"

// makeUKI: the stub is the image's, like the kernel that it starts.
const makeUKI = `
ukify build --efi-arch="$1" --stub="/os/usr/lib/systemd/boot/efi/linux$1.efi.stub" \
	--linux=vmlinuz --uname="$2" --initrd=initrd --initrd=own.cpio \
	--cmdline=@cmdline --os-release=@os-release --output=uki.efi
chmod 0644 uki.efi
`

// commandLine is what the kernel is told. roothash names root and hash tree by
// their partitions' UUIDs, and the initrd's rules for udev (90-kairos.rules) pick
// those of the disk that was booted from, when a stick with the same release is
// in the machine too. gpt accepts the backup of a partition table that a power
// failure tore; panic=10 makes a kernel that dies try again, which is what boot
// counting counts. ssh listens where the configuration says, and not on every
// virtual machine's AF_VSOCK. The kernel writes to both consoles; the last one is
// /dev/console, where all else says why a start failed: the screen of hardware, which
// need not have a serial port, and the port of virtual machines, which clouds record.
func commandLine(a arch, c release.Config, more []string) string {
	consoles := []string{"console=" + a.console, "console=tty0"}
	if builder.Flavour(c.Flavour) == builder.Cloud {
		slices.Reverse(consoles)
	}
	return strings.Join(slices.Concat([]string{
		"roothash=" + c.RootHash, "systemd.verity_root_data=/dev/kairos/root", "systemd.verity_root_hash=/dev/kairos/verity",
		"root=/dev/mapper/root", "rootfstype=erofs", "ro",
		"gpt", "panic=10", "systemd.ssh_auto=no", "loglevel=4",
	}, consoles, more), " ")
}

func (b *build) uki(ctx context.Context) error {
	kernel, version, err := findKernel(b.path("os"))
	if err != nil {
		return err
	}
	main, err := b.initrd(ctx, version)
	if err != nil {
		return err
	}
	own, err := archive(os.DirFS(filepath.Join(b.path("os"), initrdFiles)))
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.Link(kernel, b.path("vmlinuz")),
		os.Link(main, b.path("initrd")),
		os.WriteFile(b.path("own.cpio"), own, 0o644),
		os.WriteFile(b.path("cmdline"), []byte(commandLine(b.arch, b.config, b.CommandLine)), 0o644),
		os.WriteFile(b.path("os-release"), []byte(osRelease), 0o644),
	); err != nil {
		return fmt.Errorf("prepare UKI: %w", err)
	}
	err = b.box.work(ctx, b.dir, job{
		bind: map[string]string{"/os": b.path("os")}, epoch: b.epoch,
		script: makeUKI, args: []string{b.arch.efi, version},
	})
	if err != nil {
		return fmt.Errorf("run ukify: %w", err)
	}
	return nil
}

// findKernel returns the path of the one kernel of a root file system, and its version.
func findKernel(root string) (path, version string, err error) {
	found, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return "", "", err
	}
	if len(found) != 1 {
		return "", "", fmt.Errorf("find the kernel: the image has %d in /boot, want one\nhint: make it with `image os`", len(found))
	}
	return found[0], strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}
