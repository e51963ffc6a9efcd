package dns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// hostsFile keeps a block of lines in a hosts file, and everything else in it as it is.
type hostsFile struct {
	path string
	key  string // tells the blocks of several meshes apart: the interface
}

// set makes lines the block; without lines there is no block.
func (h hostsFile) set(lines []string) error {
	return h.edit(func(text []byte) []byte { return editHosts(text, h.key, lines) })
}

// clean removes the block, and those of interfaces that are gone: what was killed
// before it could clean up would stay for ever when the next one has another
// interface.
func (h hostsFile) clean(alive func(iface string) bool) error {
	return h.edit(func(text []byte) []byte {
		return []byte(withoutBlocks(text, func(key string) bool { return key == h.key || !alive(key) }))
	})
}

func (h hostsFile) edit(change func([]byte) []byte) error {
	// A link would be replaced by a file, where it should lead to the file.
	path, err := filepath.EvalSymlinks(h.path)
	if err != nil {
		return fmt.Errorf("find %s: %w", h.path, err)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read hosts: %w", err)
	}
	text := change(old)
	if bytes.Equal(text, old) {
		return nil
	}
	if err := replaceFile(path, text); err == nil {
		return nil
	}
	// A bind mount, as containers have it, can be written but not replaced.
	if err := rewriteFile(path, text); err != nil {
		return fmt.Errorf("write hosts: %w", err)
	}
	return nil
}

// editHosts returns text with the block of key replaced by lines, at its end.
func editHosts(text []byte, key string, lines []string) []byte {
	out := withoutBlocks(text, func(k string) bool { return k == key })
	if len(lines) == 0 {
		return []byte(out)
	}
	if out != "" && !strings.HasSuffix(out, "\n") {
		out += "\n"
	}
	return []byte(out + beginOf(key) + "\n" + strings.Join(lines, "\n") + "\n" + endOf(key) + "\n")
}

// The lines around a block.
const blockPrefix, blockBegin, blockEnd = "# kairos ", " begin", " end"

func beginOf(key string) string { return blockPrefix + key + blockBegin }
func endOf(key string) string   { return blockPrefix + key + blockEnd }

// keyOf returns whose block begins with the line.
func keyOf(line string) (key string, ok bool) {
	key, ok = strings.CutPrefix(strings.TrimSpace(line), blockPrefix)
	if ok {
		key, ok = strings.CutSuffix(key, blockBegin)
	}
	return key, ok && key != "" && !strings.ContainsAny(key, " \t")
}

// withoutBlocks returns text without the blocks of the keys that drop names. A
// block without an end is taken for its first line alone: what follows may be
// somebody's.
func withoutBlocks(text []byte, drop func(key string) bool) string {
	var keep strings.Builder
	rest := strings.SplitAfter(string(text), "\n")
	for i := 0; i < len(rest); i++ {
		if key, ok := keyOf(rest[i]); ok && drop(key) {
			i += blockLen(rest[i:], beginOf(key), endOf(key)) - 1
			continue
		}
		keep.WriteString(rest[i])
	}
	return keep.String()
}

// blockLen is how many lines the block at the start of lines has.
func blockLen(lines []string, begin, end string) int {
	for i, line := range lines[1:] {
		switch strings.TrimSpace(line) {
		case end:
			return i + 2
		case begin:
			return 1
		}
	}
	return 1
}

// replaceFile swaps the file for one with the same owner and mode: whoever
// reads sees the old text or the new one.
func replaceFile(path string, text []byte) (err error) {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".hosts-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Chmod(info.Mode().Perm())
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && err == nil {
		err = tmp.Chown(int(stat.Uid), int(stat.Gid))
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// rewriteFile writes into the file that is there.
func rewriteFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	return errors.Join(err, f.Close())
}

// writable fails where the file cannot be written, before there is anything to write.
func writable(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open hosts: %w", err)
	}
	return f.Close()
}
