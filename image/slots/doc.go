// Package slots writes operating systems to the two places that a machine's disk
// has for them, so that a power cut at any moment leaves a machine that boots.
//
//	GPT              kairos-esp | kairos-root-a kairos-verity-a | kairos-root-b kairos-verity-b | kairos-data
//	ESP /EFI/Linux   kairos-000001.efi        slot a, never judged: flashed or installed, or found good
//	                 kairos-000002+3.efi      slot b, three tries left
//	ESP /kairos      slots.json               what is in the slots, for people
//
// Which UKI boots is systemd-boot's choice: of those that have tries left, the
// one whose name sorts last, that is the highest generation. A UKI carries the
// root hash of its system on its command line, and the partitions of a slot have
// the two halves of that hash as their UUIDs (Discoverable Partitions
// Specification), which is how systemd finds them. So nothing says "slot b is
// active": a slot is booted because its UKI sorts last, and a slot is what its
// partitions' UUIDs say. slots.json only adds names to it; losing it loses no machine.
//
// # What a power cut may do
//
// Sectors that were not synced may be written or not, in any order. FAT has no
// journal: a rename is a second directory entry and then the removal of the
// first, and a cut in between leaves two names for the same clusters, of which
// removing one destroys the other. Therefore nothing here renames or replaces a
// file on the ESP:
//
//   - A UKI is written under its final name with its first sector left zero, and
//     synced. Without "MZ" at its beginning it is no program, and systemd-boot
//     passes it over. Writing that one sector is what makes it bootable: all or nothing.
//   - Dropping a UKI is the reverse: its first sector is zeroed and synced before
//     the file is removed.
//   - slots.json is written in place, after a second copy has been.
//
// The order of an upgrade is in PlanUpgrade; the reasons stand there. The two
// copies of the partition table are written one after the other with a sync in
// between, the one that is not in use first.
//
// Formats: Boot Loader Specification (names, boot counting); UEFI specification
// 2.10, section 5 (GPT); dm-verity version 1 (cryptsetup's on-disk format);
// systemd-stub(7).
package slots
