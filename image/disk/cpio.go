package disk

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// archive puts a tree into a cpio archive of the "newc" form, the one that the
// kernel unpacks for an initrd: files and directories sorted by name, root's,
// without times or numbers of the building machine.
//
// Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
func archive(tree fs.FS) ([]byte, error) {
	var b bytes.Buffer
	inode := 0
	add := func(name string, mode uint32, data []byte) {
		inode++
		links := 1
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad(&b)
		b.Write(data)
		pad(&b)
	}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case d.IsDir():
			add(name, 0o040755, nil)
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a directory", name)
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		mode := uint32(0o100644)
		if strings.HasSuffix(path.Base(name), ".sh") {
			mode = 0o100755
		}
		add(name, mode, data)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("archive files of the initrd: %w", err)
	}
	inode = -1
	add("TRAILER!!!", 0, nil)
	return b.Bytes(), nil
}

// pad fills up to the next multiple of four bytes.
func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
