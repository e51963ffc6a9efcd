package install

import (
	"os"
	"strings"
	"testing"
)

// One disk has many names, and each of them is taken wherever a disk is named.
func TestFind(t *testing.T) {
	disks := []Disk{
		{Path: "/dev/sda", Model: "Fast_Disk", Serial: "S1", WWN: "0x5000c500a1b2c3d4"},
		{Path: "/dev/sdaa"}, {Path: "/dev/nvme0n1", Model: "Fast Disk", Serial: "S2"},
		{Path: "/dev/sdb", Model: "Stick", Serial: "0123456789"}, {Path: "/dev/sdc", Model: "Stick", Serial: "0123456789"},
	}
	links := map[string]string{"/dev/disk/by-id/ata-Fast_Disk_S1": "/dev/sda", "/dev/disk/by-path/pci-1": "/dev/sdaa", "/dev/sda1": "", "/dev/nvme0n1p2": "", "/dev/sr0": ""}
	for _, d := range disks {
		links[d.Path] = ""
	}
	real := func(path string) (string, error) {
		to, ok := links[path]
		switch {
		case !ok:
			return "", os.ErrNotExist
		case to == "":
			return path, nil
		}
		return to, nil
	}
	for _, tt := range []struct{ name, want, wrong string }{
		{"sda", "/dev/sda", ""},
		{" /dev/sda ", "/dev/sda", ""},
		{"sdaa", "/dev/sdaa", ""},
		{"nvme0n1", "/dev/nvme0n1", ""},
		{"/dev/disk/by-id/ata-Fast_Disk_S1", "/dev/sda", ""},
		{"ata-Fast_Disk_S1", "/dev/sda", ""},
		{"disk/by-path/pci-1", "/dev/sdaa", ""},
		{"s2", "/dev/nvme0n1", ""},
		{"0x5000c500a1b2c3d4", "/dev/sda", ""},
		{"fast disk s1", "/dev/sda", ""},
		{"Fast_Disk_S2", "/dev/nvme0n1", ""},
		{"Stick 0123456789", "", "means /dev/sdb and /dev/sdc: name one by its path"},
		{"sda1", "", "/dev/sda1 is not a whole disk: the one it is on is /dev/sda"},
		{"/dev/nvme0n1p2", "", "the one it is on is /dev/nvme0n1"},
		{"sr0", "", "/dev/sr0 is not a disk"},
		{"Fast Disk", "", "there is no disk Fast Disk"},
		{"yes", "", "there is no disk yes"},
		{"", "", "no disk was named"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Find(disks, tt.name, real)
			if d.Path != tt.want || (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("got %q, %v", d.Path, err)
			}
		})
	}
}

// Who cannot tell two disks from each other by what their maker wrote on them is told so.
func TestTwins(t *testing.T) {
	l := Listing{Lsblk: []byte(`{"blockdevices":[
	 {"path":"/dev/sda","type":"disk","size":16000000000,"model":"Stick","tran":"usb"},
	 {"path":"/dev/sdb","type":"disk","size":16000000000,"model":"Stick","tran":"usb"},
	 {"path":"/dev/sdc","type":"disk","size":16000000000,"model":"Stick","tran":"usb","serial":"7"},
	 {"path":"/dev/sdd","type":"disk","size":16000000001,"model":"Stick","tran":"usb"}]}`),
		Places: map[string]string{"/dev/sda": "pci-1-usb-0:1", "/dev/sdb": "pci-1-usb-0:2"}}
	disks, err := l.Disks(Limits{Size: 12 << 30})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"/dev/sda  14.9 GiB  Stick  (usb)  looks like /dev/sdb, and is at pci-1-usb-0:1",
		"/dev/sdb  14.9 GiB  Stick  (usb)  looks like /dev/sda, and is at pci-1-usb-0:2",
		"/dev/sdc  14.9 GiB  Stick  7  (usb)",
		"/dev/sdd  14.9 GiB  Stick  (usb)",
	} {
		if got := disks[i].String(); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if want := "it is small for Kubernetes: with 16.0 GiB, images and pods have room"; disks[i].Warning != want {
			t.Errorf("warned %q", disks[i].Warning)
		}
	}
}
