package disk

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/kairos-io/kairos/image/slots"
)

// isoNote is what somebody finds who looks into the medium.
const isoNote = `kairos mesh %s

This medium starts a computer (UEFI) and installs kairos mesh on one of its disks.
Write it to a USB stick or an optical disc as it is.
`

// makeAddon: what the stub adds to the kernel's command line. $1 is the
// architecture in EFI names, $2 the words.
const makeAddon = `
ukify build --efi-arch="$1" --stub=image/addon.efi.stub --cmdline="$2" --output=live.addon.efi
`

// makeISO makes an ISO 9660 file system with ESP, root and hash tree as files, and
// a partition table whose partitions are these files: firmware starts the medium
// from an optical drive (El Torito) as well as from a stick (GPT). The table and
// its copy are where the file system has nothing: in its first 32 KiB and in the
// padding at its end.
//
// $1 volume ID of the FAT, which --invariant would replace if it came later, $2 UUID of the disk, $3-$5 UUIDs and $6-$8 types of the
// partitions.
const makeISO = `
kib=$(du -sk --apparent-size esp | cut -f1)
truncate -s $(((kib + 16384 + 1023) / 1024))M iso/esp.img
mkfs.vfat --invariant -F 32 -n KAIROS-ESP -i "$1" iso/esp.img
mcopy -s -p -Q -m -i iso/esp.img esp/* ::
ln root.erofs root.verity iso
xorriso -as mkisofs -quiet -o medium -V KAIROS_LIVE -iso-level 3 -r --set_all_file_dates =$SOURCE_DATE_EPOCH -e esp.img -no-emul-boot iso
xorriso -indev medium -find / -type f -exec report_lba -- >extents
entry() {
	sed -n "s|^File data lba: *0 , *\([0-9]*\) , *\([0-9]*\) , .*'/$1'\$|\1 \2|p" extents | {
		read -r lba blocks
		echo "start=$((lba * 4)), size=$((blocks * 4)), name=$2, uuid=$3, type=$4"
	}
}
{
	echo "label: gpt"
	echo "label-id: $2"
	echo "first-lba: 34"
	entry esp.img kairos-esp "$3" "$6"
	entry root.erofs kairos-root-a "$4" "$7"
	entry root.verity kairos-verity-a "$5" "$8"
} | sfdisk --quiet --no-tell-kernel --wipe never --wipe-partitions never medium
`

// ISO writes an installer medium: the same system in the same partitions, with an
// add-on to its UKI that makes it leave the machine alone (kairos.live). It can be
// told from a disk that holds the same release by its UUID.
func ISO(ctx context.Context, o MediumOptions) error {
	return o.make(ctx, (*medium).iso)
}

func (m *medium) iso(ctx context.Context) error {
	root, verity, err := slots.UUIDs(m.parts.config.RootHash)
	if err != nil {
		return err
	}
	id := derivedUUID("medium " + m.parts.digest.Hex)
	err = m.box.work(ctx, m.dir, job{epoch: diskEpoch, script: makeAddon, args: []string{m.arch.efi, "kairos.live kairos.medium=" + id}})
	if err != nil {
		return fmt.Errorf("run ukify: %w", err)
	}
	addon := "EFI/Linux/" + slots.FileName(firstGeneration, 0) + ".extra.d/live.addon.efi"
	if err := m.esp(map[string]string{addon: "live.addon.efi"}); err != nil {
		return err
	}
	if err := os.Mkdir(m.path("iso"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(m.path("iso/README.txt"), fmt.Appendf(nil, isoNote, m.parts.config.Version), 0o644); err != nil {
		return err
	}
	err = m.box.work(ctx, m.dir, job{epoch: diskEpoch, script: makeISO, args: []string{
		strings.ReplaceAll(id, "-", "")[:8], id,
		derivedUUID("medium ESP " + m.parts.digest.Hex), root.String(), verity.String(),
		espType, m.arch.rootType, m.arch.verityType,
	}})
	if err != nil {
		return fmt.Errorf("make ISO: %w", err)
	}
	return nil
}
