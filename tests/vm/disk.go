package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// Disk is one disk of a machine.
type Disk struct {
	Image   string // raw image that the disk starts as; the file itself is only read. "": empty
	Size    int64  // bytes; 0: as large as the image
	Ejected bool   // not in the machine at its next start
}

func (d Disk) create(ctx context.Context, tools *Toolbox, path string) error {
	args := []string{"qemu-img", "create", "-q", "-f", "qcow2"}
	if d.Image != "" {
		image, err := filepath.Abs(d.Image)
		if err != nil {
			return err
		}
		args = append(args, "-b", image, "-F", "raw")
	}
	args = append(args, path)
	if d.Size > 0 {
		args = append(args, strconv.FormatInt(d.Size, 10))
	}
	_, err := tools.Run(ctx, args...)
	return err
}

// Seed is what a NoCloud volume tells cloud-init.
type Seed struct {
	UserData      string
	InstanceID    string
	NetworkConfig string // "": cloud-init's default, DHCP
}

// NewSeed writes the volume: a FAT file system with the label that cloud-init
// looks for. The path of its image comes back.
func (r *Rack) NewSeed(ctx context.Context, s Seed) (string, error) {
	files := map[string]string{"user-data": s.UserData, "meta-data": "instance-id: " + s.InstanceID + "\n"}
	if s.NetworkConfig != "" {
		files["network-config"] = s.NetworkConfig
	}
	return r.NewFAT(ctx, "CIDATA", files)
}

// NewFAT makes a disk image that is one FAT file system with the given files in
// its root.
func (r *Rack) NewFAT(ctx context.Context, label string, files map[string]string) (string, error) {
	dir, err := os.MkdirTemp(r.dir, "fat-")
	if err != nil {
		return "", fmt.Errorf("make a FAT volume: %w", err)
	}
	image := filepath.Join(dir, "volume.img")
	const kib = "2048"
	if _, err := r.Tools.Run(ctx, "mkfs.vfat", "-C", "-n", label, image, kib); err != nil {
		return "", fmt.Errorf("make a FAT volume: %w", err)
	}
	return image, r.CopyToFAT(ctx, image, files)
}

// CopyToFAT writes files into the root of the FAT file system in image, which
// may be a part of a larger one: "disk.img@@1048576" is mtools' name for the
// file system at that byte.
func (r *Rack) CopyToFAT(ctx context.Context, image string, files map[string]string) error {
	dir, err := os.MkdirTemp(r.dir, "files-")
	if err != nil {
		return fmt.Errorf("write to a FAT volume: %w", err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write to a FAT volume: %w", err)
		}
		if _, err := r.Tools.Run(ctx, "mcopy", "-o", "-i", image, path, "::"+name); err != nil {
			return fmt.Errorf("write to a FAT volume: %w", err)
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
