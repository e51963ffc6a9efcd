package install

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// What `lsblk --json --bytes` of util-linux 2.41 says of a machine with a live
// stick, an empty disk, one with another system, and one in use.
const listing = `{"blockdevices": [
 {"path":"/dev/loop0","type":"loop","size":4096,"ro":true,"model":null,"tran":null,"fstype":null,"label":null,"partlabel":null,"mountpoints":[null]},
 {"path":"/dev/sr0","type":"rom","size":700000000,"ro":false,"model":"DVD","tran":"sata","fstype":"iso9660","label":"CIDATA","partlabel":null,"mountpoints":[null]},
 {"path":"/dev/sda","type":"disk","size":32010928128,"ro":false,"model":"Live\u001b[31m Stick ","tran":"usb","fstype":null,"label":null,"partlabel":null,"mountpoints":[null],
  "children":[{"path":"/dev/sda1","type":"part","size":1073741824,"ro":false,"model":null,"tran":null,"fstype":"vfat","label":null,"partlabel":"kairos-esp","mountpoints":[null]},
   {"path":"/dev/sda2","type":"part","size":3221225472,"ro":false,"model":null,"tran":null,"fstype":"DM_verity_hash","label":null,"partlabel":"kairos-root-a","mountpoints":[null],
    "children":[{"path":"/dev/mapper/root","type":"crypt","size":3221225472,"ro":true,"model":null,"tran":null,"fstype":"erofs","label":null,"partlabel":null,"mountpoints":["/"]}]}]},
 {"path":"/dev/nvme0n1","type":"disk","size":500107862016,"ro":false,"model":"Fast","tran":"nvme","fstype":null,"label":null,"partlabel":null,"mountpoints":[null],
  "children":[{"path":"/dev/nvme0n1p1","type":"part","size":500,"ro":false,"model":null,"tran":null,"fstype":"ntfs","label":"Windows","partlabel":"Basic data","mountpoints":[null]},
   {"path":"/dev/nvme0n1p2","type":"part","size":500,"ro":false,"model":null,"tran":null,"fstype":null,"label":null,"partlabel":null,"mountpoints":[null]}]},
 {"path":"/dev/vda","type":"disk","size":21474836480,"ro":false,"model":null,"tran":"virtio","fstype":null,"label":null,"partlabel":null,"mountpoints":[null]},
 {"path":"/dev/vdb","type":"disk","size":4294967296,"ro":false,"model":null,"tran":"virtio","fstype":"ext4","label":"small","partlabel":null,"mountpoints":[null]},
 {"path":"/dev/vdc","type":"disk","size":21474836480,"ro":false,"model":null,"tran":"virtio","fstype":null,"label":null,"partlabel":null,"mountpoints":[null],
  "children":[{"path":"/dev/vdc1","type":"part","size":500,"ro":false,"model":null,"tran":null,"fstype":"ext4","label":"data","partlabel":null,"mountpoints":["/mnt/a\u001bb"]}]},
 {"path":"/dev/vdd","type":"disk","size":21474836480,"ro":false,"model":null,"tran":"virtio","fstype":"LVM2_member","label":null,"partlabel":null,"mountpoints":[null],
  "children":[{"path":"/dev/mapper/vg-lv","type":"lvm","size":500,"ro":false,"model":null,"tran":null,"fstype":"ext4","label":null,"partlabel":null,"mountpoints":[null]}]},
 {"path":"/dev/vde","type":"disk","size":21474836480,"ro":true,"model":null,"tran":"virtio","fstype":"vfat","label":"cidata","partlabel":null,"mountpoints":[null]},
 {"path":"/dev/vdf","type":"disk","size":21474836480,"ro":false,"model":null,"tran":"virtio","fstype":"swap","label":null,"partlabel":null,"mountpoints":["[SWAP]"]},
 {"path":"/dev/zram0","type":"disk","size":21474836480,"ro":false,"model":null,"tran":null,"fstype":null,"label":null,"partlabel":null,"mountpoints":[null]}
]}`

func TestDisks(t *testing.T) {
	got, err := Listing{Lsblk: []byte(listing)}.Disks(Limits{Running: "/dev/sda", Size: 8 << 30})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ text, content, refused string }{
		{"/dev/nvme0n1  465.8 GiB  Fast  (nvme)", "2 partitions: ntfs Windows, unknown", ""},
		{"/dev/vda  20.0 GiB  (virtio)", "", ""},
		{"/dev/sda  29.8 GiB  Live[31m Stick  (usb)", "2 partitions: vfat kairos-esp, DM_verity_hash kairos-root-a", "this system runs from it"},
		{"/dev/vdb  4.0 GiB  (virtio)", "ext4 small", "it has 4.0 GiB, 8.0 GiB are needed"},
		{"/dev/vdc  20.0 GiB  (virtio)", "1 partitions: ext4 data", "/dev/vdc1 is mounted at /mnt/ab"},
		{"/dev/vdd  20.0 GiB  (virtio)", "1 partitions: ext4", "/dev/vdd is in use by /dev/mapper/vg-lv (lvm)"},
		{"/dev/vde  20.0 GiB  (virtio)", "vfat cidata", "it is read-only"},
		{"/dev/vdf  20.0 GiB  (virtio)", "swap", "/dev/vdf is swap in use"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d disks: %+v", len(got), got)
	}
	for i, w := range want {
		if d := got[i]; d.String() != w.text || d.Content != w.content || d.Refused != w.refused {
			t.Errorf("got  %q %q %q\nwant %q %q %q", d, d.Content, d.Refused, w.text, w.content, w.refused)
		}
	}
	if got[0].Name() != "nvme0n1" {
		t.Errorf("name %q", got[0].Name())
	}
}

// Where the running system's disk is not known, what it is used for still tells.
func TestRunningSystemIsInUse(t *testing.T) {
	got, err := Listing{Lsblk: []byte(listing)}.Disks(Limits{})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(got, func(d Disk) bool { return d.Path == "/dev/sda" })
	if got[at].Refused != "/dev/sda2 is in use by /dev/mapper/root (crypt)" {
		t.Errorf("got %q", got[at].Refused)
	}
}

func TestVolumes(t *testing.T) {
	got, err := Listing{Lsblk: []byte(listing)}.Volumes("cidata")
	if err != nil || !slices.Equal(got, []string{"/dev/sr0", "/dev/vde"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := (Listing{Lsblk: []byte("lsblk: no")}).Volumes("x"); err == nil {
		t.Error("what is no listing was taken for an empty one")
	}
}

func TestMinSize(t *testing.T) {
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	defs := fstest.MapFS{
		"10.conf": text("[Partition]\nSizeMinBytes=1G\nSizeMaxBytes=2G\n"), "20.conf": text("SizeMinBytes=32M"), "30.conf": text("SizeMinBytes=512"),
		"readme": text("SizeMinBytes=9T"),
	}
	if got, err := MinSize(defs); err != nil || got != 1<<30+32<<20+512+2<<20 {
		t.Errorf("got %d, %v", got, err)
	}
	defs["40.conf"] = text("SizeMinBytes=many")
	if _, err := MinSize(defs); err == nil || !strings.Contains(err.Error(), `40.conf: "many" is not a size`) {
		t.Errorf("got %v", err)
	}
	if _, err := MinSize(fstest.MapFS{}); err == nil {
		t.Error("no definitions need no space")
	}
}
