package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// suite has QEMU 10, under which Debian 13's guests are steady; 7.2, of the
// release before, loses them now and then.
const suite = "trixie"

// toolPackages are installed into the toolbox; what they depend on follows.
var toolPackages = []string{
	"qemu-system-x86", "qemu-utils", "ovmf", "dosfstools", "mtools", "dnsmasq-base", "socat",
	// what a child needs between the shell and the tool
	"dash", "coreutils", "util-linux", "mount", "iproute2",
}

// Toolbox is a Debian tree whose programs run in place of the host's. Commands
// can be made from several goroutines.
type Toolbox struct{ dir string }

// OpenToolbox makes the toolbox unless build/cache below root has it already
// for this list of packages. It takes about 15 seconds and 250 MB. Two
// processes may call it at once: the second waits.
func OpenToolbox(ctx context.Context, root string, log io.Writer) (*Toolbox, error) {
	key := sha256.Sum256([]byte(suite + " " + strings.Join(toolPackages, " ")))
	cache := filepath.Join(root, "build", "cache")
	dir := filepath.Join(cache, "vm-tools-"+hex.EncodeToString(key[:8]))
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("make the toolbox: %w", err)
	}
	unlock, err := lockFile(filepath.Join(cache, "vm-tools.lock"))
	if err != nil {
		return nil, fmt.Errorf("make the toolbox: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return &Toolbox{dir: dir}, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("look for the toolbox: %w", err)
	}
	fmt.Fprintln(log, "making the toolbox of virtual machines")
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("make the toolbox: %w", err)
	}
	// The packages' scripts are not run: no program in the list needs them.
	_, err = run.Out(ctx, "mmdebstrap", "--variant=extract", `--aptopt=APT::Install-Recommends "false"`,
		"--include="+strings.Join(toolPackages, ","), suite, tmp)
	if err != nil {
		return nil, fmt.Errorf("make the toolbox: %w", err)
	}
	return &Toolbox{dir: dir}, os.Rename(tmp, dir)
}

// lockFile holds a lock on path, made if need be, until the function that comes
// back is called or the process ends.
func lockFile(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// enter puts the toolbox over /usr and becomes the command. All of Debian's
// programs and libraries are below /usr since release 12, and a host that the
// tests run on has it so too; everything else, paths of files above all, stays
// the same for the tools.
const enter = `mount --bind "$1/usr" /usr && shift && exec "$@"`

// inside is the command line that runs args out of the toolbox, as one process
// whose mounts nobody else sees.
func (t *Toolbox) inside(args ...string) []string {
	return append([]string{"unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", enter, "toolbox", t.dir}, args...)
}

// Run runs one of the tools to its end and returns what it wrote to stdout.
func (t *Toolbox) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "unshare", t.inside(args...)[1:]...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	ended, err := startTied(cmd)
	if err == nil {
		err = <-ended
	}
	if err != nil {
		return out.String(), fmt.Errorf("run %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
