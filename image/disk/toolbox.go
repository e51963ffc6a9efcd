package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/kairos-io/kairos/image/builder"
)

// ToolboxOptions say where a toolbox comes from.
type ToolboxOptions struct {
	CacheDir string // keeps it, one directory for each list of packages
	Mirrors  builder.Mirrors
	Log      io.Writer // mmdebstrap's progress
}

// Toolbox is a Debian system with the programs that make disks.
type Toolbox struct {
	dir string
	log io.Writer
}

// OpenToolbox returns the toolbox, making it if the cache does not have it.
func OpenToolbox(ctx context.Context, o ToolboxOptions) (*Toolbox, error) {
	sum := sha256.Sum256([]byte(builder.Suite + runtime.GOARCH + strings.Join(builder.Toolbox, " ")))
	cache, err := filepath.Abs(o.CacheDir)
	if err != nil {
		return nil, fmt.Errorf("open toolbox: %w", err)
	}
	t := &Toolbox{filepath.Join(cache, fmt.Sprintf("toolbox-%x", sum[:8])), o.Log}
	if _, err := os.Stat(t.dir); err == nil {
		return t, nil
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("make toolbox: this takes root\nhint: run it with sudo")
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("make toolbox: %w", err)
	}
	unlock, err := builder.Lock(ctx, cache, filepath.Base(t.dir))
	if err != nil {
		return nil, fmt.Errorf("make toolbox: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(t.dir); err == nil {
		return t, nil
	}
	if err := installTools(ctx, o, t.dir); err != nil {
		return nil, fmt.Errorf("make toolbox: %w", err)
	}
	return t, nil
}

// installTools makes the toolbox at dir, complete or not at all.
func installTools(ctx context.Context, o ToolboxOptions, dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "toolbox-new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	root := filepath.Join(tmp, "root")
	if err := builder.Install(ctx, builder.Installation{
		Arch: runtime.GOARCH, Mirrors: o.Mirrors, Packages: builder.Toolbox, Out: root, Log: o.Log,
		// Places for what a job binds.
		Options: []string{"--customize-hook=" + `mkdir -p "$1/work" "$1/os"`},
	}); err != nil {
		return err
	}
	return os.Rename(root, dir)
}

// job is one run of a shell script inside of a root file system, where it sees
// the kernel's /proc and /dev and whatever is bound there; nothing of that is
// seen outside.
type job struct {
	root   string            // changed by nobody: it is read-only
	bind   map[string]string // target in root (an existing directory) -> directory of this machine
	tmpfs  []string          // directories that are empty, and written to
	epoch  time.Time         // SOURCE_DATE_EPOCH
	script string            // sh -eu
	args   []string          // $1 and so on
	log    io.Writer
}

// work runs script in the toolbox with dir, its current directory, at /work.
func (t *Toolbox) work(ctx context.Context, dir string, j job) error {
	j.root, j.log = t.dir, t.log
	if j.bind == nil {
		j.bind = map[string]string{}
	}
	j.bind["/work"] = dir
	j.tmpfs = append(j.tmpfs, "/tmp", "/var/tmp", "/run")
	j.script = "cd /work\n" + j.script
	return j.run(ctx)
}

func (j job) run(ctx context.Context) error {
	var setup strings.Builder
	setup.WriteString("root=$1; shift\nmount --bind -o ro \"$root\" \"$root\"\n")
	for _, dir := range j.tmpfs {
		fmt.Fprintf(&setup, "mount -t tmpfs -o mode=1777 tmpfs \"$root\"%s\n", dir)
	}
	setup.WriteString("mount --rbind /proc \"$root/proc\"\nmount --rbind /dev \"$root/dev\"\n")
	for target, source := range j.bind {
		fmt.Fprintf(&setup, "mkdir -p \"$root\"%s 2>/dev/null || :\nmount --bind '%s' \"$root\"%s\n", target, strings.ReplaceAll(source, "'", `'\''`), target)
	}
	setup.WriteString(`exec chroot "$root" /bin/sh -euc "$@"` + "\n")
	args := append([]string{"--mount", "--propagation", "private", "sh", "-euc", setup.String(), "sh", j.root, j.script, "sh"}, j.args...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/tmp", "TMPDIR=/var/tmp", "SYSTEMD_COLORS=0",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(j.epoch.Unix(), 10)}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(out.Bytes()))
	}
	return nil
}

// tail returns the last lines of a program's output, which is where the reason is.
func tail(out []byte) []byte {
	const limit = 2000
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return bytes.TrimSpace(out)
}
