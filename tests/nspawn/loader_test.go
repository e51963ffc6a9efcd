package nspawn

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/kairos-io/kairos/image/assess"
	"github.com/kairos-io/kairos/image/assess/host"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/tests/lab"
)

// A container has no firmware and one root. What systemd-boot and systemd-bless-boot
// do with an entry that is on trial is done by the scripts below, on the names of the
// same files; a system is a set of files that is laid over the image while it runs.
// Everything else is what a machine has: the units, the check, and the reboot.

// loaderDir is where the loader has its files inside a machine: for each system its
// own files, which of them lie over the image now, and what it tells the system.
const loaderDir = "/var/lib/kairos-loader"

const bootEntries = "/efi/EFI/Linux"

// bootLoader runs on the host before each boot. An entry holds the name of its system.
const bootLoader = `set -eu
root=$1
dir=$root` + loaderDir + `
cd "$root` + bootEntries + `"
for entry in $(ls -r | grep -v +0) $(ls -r | grep +0 || :); do break; done
name=$(cat "$entry")
rm -rf "$dir/efivars"
mkdir "$dir/efivars"
case $entry in
*+[1-9]*)
	tries=${entry#*+}; tries=${tries%.efi}
	left=${tries%%-*}; used=0
	case $tries in *-*) used=${tries#*-} ;; esac
	next=${entry%%+*}+$((left-1))-$((used+1)).efi
	mv "$entry" "$next"
	echo "$next" >"$dir/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	;;
esac
cd "$root"
xargs -r rm -f <"$dir/active"
mkdir -p "$dir/systems/$name"
(cd "$dir/systems/$name" && find . -type f) >"$dir/active"
cp -a "$dir/systems/$name/." .
echo "roothash=$(printf %s "$name" | sha256sum | cut -d " " -f 1)" >"$dir/cmdline"
echo "$name" >>"$dir/booted"
`

// blessBoot is what systemd-bless-boot does of "bad": no tries are left.
const blessBoot = `#!/bin/sh
set -eu
[ "$1" = bad ]
entry=$(cat /sys/firmware/efi/efivars/LoaderBootCountPath-*)
cd ` + bootEntries + `
mv "$entry" "${entry%%+*}+0-${entry##*-}"
`

// hashOf is the root hash of a system, as the loader makes it up.
func hashOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// withLoader makes a machine choose between systems at each boot. Each of the given
// ones is a set of files by their paths; the image itself is v1, which runs first.
func withLoader(c lab.NspawnConfig, systems map[string]map[string]string) lab.NspawnConfig {
	c.BeforeBoot = bootLoader
	const units = "/etc/systemd/system/"
	c.Files = append(c.Files,
		lab.File{Path: path.Join(bootEntries, slots.FileName(1, 0)), Text: "v1"},
		lab.File{Path: loaderDir + "/active"},
		lab.File{Path: "/usr/lib/systemd/systemd-bless-boot", Text: blessBoot, Mode: 0o755},
		lab.File{Path: units + "kairos-lab-firmware.service", Text: "[Unit]\nDescription=What firmware tells\nDefaultDependencies=no\nBefore=kairos-boot-check.service\n" +
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=mount -t tmpfs tmpfs /sys/firmware\nExecStart=mkdir /sys/firmware/efi\nExecStart=cp -r " +
			loaderDir + "/efivars /sys/firmware/efi\n"},
		lab.File{Path: units + "sysinit.target.wants/kairos-lab-firmware.service", Link: "../kairos-lab-firmware.service"},
		lab.File{Path: units + "kairos-boot-check.service.d/90-lab.conf", Text: "[Service]\nBindReadOnlyPaths=" + loaderDir + "/cmdline:/proc/cmdline\n"})
	for name, files := range systems {
		for file, text := range files {
			f := lab.File{Path: path.Join(loaderDir, "systems", name, file), Text: text}
			if strings.HasPrefix(text, "\x7fELF") {
				f.Mode = 0o755
			}
			c.Files = append(c.Files, f)
		}
	}
	return c
}

// trial is a machine with a loader that is given a system.
type trial struct {
	*lab.Machine
	r *rig
}

// has completes what the machine has, as `kairos upgrade` notes it.
func (t trial) has(e assess.Expect) assess.Expect {
	t.r.Helper()
	root, err := t.Root()
	if err != nil {
		t.r.Fatal(err)
	}
	err = t.InNet(func() error {
		network, err := host.Look(root)
		for _, c := range network.Cards {
			e.NICs = append(e.NICs, c.NIC())
		}
		return err
	})
	if err != nil {
		t.r.Fatal(err)
	}
	e.When, e.Configured = time.Now(), true
	return e
}

// try makes a system the next one to boot, with its boots counted, tells it what the
// machine had, and reboots.
func (t trial) try(system string, had assess.Expect) {
	t.r.Helper()
	root, err := t.Root()
	if err != nil {
		t.r.Fatal(err)
	}
	if err := had.Save(root + assess.Dir); err != nil {
		t.r.Fatal(err)
	}
	t.r.write(t.Name(), path.Join(bootEntries, slots.FileName(2, slots.Tries)), system)
	if err := t.Reboot(t.r.ctx); err != nil {
		t.r.Fatal(err)
	}
}

// booted are the systems that the loader has started, in order.
func (t trial) booted() []string {
	t.r.Helper()
	root, err := t.Root()
	if err != nil {
		return nil // it is rebooting
	}
	text, err := os.ReadFile(root + loaderDir + "/booted")
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

// fallsBack waits until the machine has given the system up and runs v1 again, after
// so many boots of the bad one.
func (t trial) fallsBack(system string, boots int) {
	t.r.Helper()
	want := strings.TrimSpace("v1 " + strings.Repeat(system+" ", boots) + "v1")
	t.r.eventually(4*time.Minute, t.Name()+" runs v1 again", func() error {
		if got := strings.Join(t.booted(), " "); got != want {
			return fmt.Errorf("its systems: %s, want %s", got, want)
		}
		if _, err := t.Exec(t.r.ctx, "systemctl", "is-active", "kairos-boot-check"); err != nil {
			return fmt.Errorf("this boot is not found good: %w", err)
		}
		return nil
	})
	files := t.r.exec(t.Name(), "ls", bootEntries)
	if want := fmt.Sprintf("kairos-000001.efi\nkairos-000002+0-%d.efi\n", boots); files != want {
		t.r.Errorf("%s: the entries are\n%s\nwant\n%s", t.Name(), files, want)
	}
}

// said is what the record of boots keeps of a system.
func (t trial) said(system string) assess.Record {
	t.r.Helper()
	root, err := t.Root()
	if err != nil {
		t.r.Fatal(err)
	}
	log, err := assess.LoadLog(root + assess.Dir)
	if err != nil {
		t.r.Fatal(err)
	}
	rec, _ := log.Of(hashOf(system))
	return rec
}
