package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// espDir is where kairos-intake looks for espName, and for nothing else.
const espDir, espName = "efi", "config.yaml"

// Misnamed says which files under the root of the file system have a name for which
// a machine passes them over, or that people do not see. Backups, whose names other
// programs make, are meant to be passed over.
func Misnamed(root string) (Problems, error) {
	var out Problems
	var errs []error
	for _, dir := range []string{espDir, "oem", "etc/kairos"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("look for misnamed files: %w", err))
		}
		for _, e := range entries {
			if e.IsDir() {
				continue
			}
			if reason := misnamed(dir, e.Name()); reason != "" {
				out = append(out, Problem{Origin{File: filepath.Join(root, dir, e.Name())}, "", reason, ""})
			}
		}
	}
	return out, errors.Join(errs...)
}

// misnamed says what is wrong with the name of a file for a directory; "" is nothing.
// Of a file that is yet to be put somewhere dir is "".
func misnamed(dir, name string) string {
	lower := strings.ToLower(name) // FAT does not tell them apart
	stem, hidden := lower, strings.HasPrefix(name, ".")
	for _, end := range []string{".txt", ".yaml", ".yml"} {
		stem = strings.TrimSuffix(stem, end)
	}
	switch {
	case stem == lower || stem+".txt" == lower: // not YAML by its name
		return ""
	case dir == espDir && lower != espName:
		return "is not read: the one file that is read there is called " + espName
	case dir == espDir:
		return ""
	case !strings.HasSuffix(name, ".yaml") && !hidden:
		return "is not read under this name by a machine: call it " + stem + ".yaml"
	case strings.HasSuffix(name, ".yaml") && hidden:
		return "is hidden, and is read all the same: remove it, or call it " + strings.TrimLeft(stem, "._") + ".yaml"
	}
	return ""
}
