package api

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// notesDir is where notes lie, below the root of the file system.
const notesDir = "run/kairos/notes"

// Notes are what units of a machine tell its people. A file holds the lines of
// one unit, and is gone when it has none.
type Notes struct {
	Root string
}

// Kinds of notes: a problem is shown in place of everything that may be waited
// for, and a wait in place of what the network waits for.
const (
	Problem = "problem"
	Waiting = "waiting"
	Note    = "note"
)

// Set replaces a unit's lines of one kind.
func (n Notes) Set(unit, kind string, lines []string) error {
	file := filepath.Join(n.Root, notesDir, unit+"."+kind)
	if len(lines) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("take back a note: %w", err)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("leave a note: %w", err)
	}
	// On a memory file system, and read again and again: no need to be atomic.
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("leave a note: %w", err)
	}
	// Everybody may read what the console shows, whatever the umask of the unit.
	if err := errors.Join(os.Chmod(filepath.Dir(file), 0o755), os.Chmod(file, 0o644)); err != nil {
		return fmt.Errorf("leave a note: %w", err)
	}
	return nil
}

// All returns the lines of one kind, of every unit.
func (n Notes) All(kind string) []string {
	files, err := filepath.Glob(filepath.Join(n.Root, notesDir, "*."+kind))
	if err != nil {
		return nil // the pattern is ours
	}
	var out []string
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // taken back since
		}
		for line := range strings.Lines(string(raw)) {
			if line = strings.TrimSpace(line); line != "" {
				out = append(out, line)
			}
		}
	}
	return out
}

// Printable drops what could steer a terminal: a text may have been written by
// another machine.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) || r == 0x2028 || r == 0x2029 || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return -1
		}
		return r
	}, s)
}
