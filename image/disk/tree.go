package disk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// overlay copies the files, links and directories of the tree from over those of
// the tree to, which belongs to the build. What is there keeps its owner and
// mode; what is new is root's.
func overlay(from, to string) error {
	root, err := os.OpenRoot(to)
	if err != nil {
		return fmt.Errorf("open tree: %w", err)
	}
	defer root.Close()
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read extra files: %w", err)
		}
		name, err := filepath.Rel(from, path)
		if err != nil || name == "." {
			return err
		}
		if err := overlayEntry(root, name, path, d); err != nil {
			return fmt.Errorf("add extra file %s: %w", name, err)
		}
		return nil
	})
}

func overlayEntry(root *os.Root, name, path string, d fs.DirEntry) error {
	switch {
	case d.IsDir():
		if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case d.Type() == fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(target, name)
	case !d.Type().IsRegular():
		return errors.New("it is neither a file, a directory nor a symbolic link")
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return root.WriteFile(name, data, info.Mode().Perm())
}

// treeSum stands for the names, modes and content below dir; "" for no directory.
func treeSum(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			content = []byte(target)
		case d.Type().IsRegular():
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(h, "%q %v %d\n", name, info.Mode(), len(content))
		h.Write(content)
		return nil
	})
	return fmt.Sprintf("%x", h.Sum(nil)), err
}
