package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// header is the first line of a cloud-config.
const header = "#cloud-config"

// maxFile bounds what is read of one file, in bytes.
const maxFile = 1 << 20

// Where configuration comes from, in the order of reading; later files win.
// Paths with a star are directories' files in lexical order.
var sources = []string{
	"var/lib/kairos/config/datasource.yaml",   // what a datasource said before local files took over from it
	"var/lib/cloud/instance/cloud-config.txt", // what cloud-init merged of its datasource
	"oem/*.yaml",
	"etc/kairos/*.yaml",
	"run/kairos/sources/*.yaml", // the system credential, then the kernel argument
}

// datasources is how many of the sources are cloud-init's own; the others are
// local files, whose keys cloud-init does not know by itself.
const datasources = 2

// Loaded is a valid configuration and where it came from.
type Loaded struct {
	Config   Config
	Origins  Origins
	Files    []string // the files with a kairos block, in the order of reading
	Warnings []string // what is not wrong and should be told, one line each
}

// Sources lists the files that exist under the root of the file system ("/"
// normally), in the order in which Load is to read them.
func Sources(root string) ([]string, error) { return glob(root, sources) }

// LocalSources lists those among Sources that no datasource of cloud-init's gave.
func LocalSources(root string) ([]string, error) { return glob(root, sources[datasources:]) }

func glob(root string, patterns []string) ([]string, error) {
	var out []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", pattern, err)
		}
		slices.Sort(found)
		out = append(out, found...)
	}
	return out, nil
}

// Load reads and merges files. Among several, one without a kairos block is
// none of our business. The error is a Problems when the files are at fault,
// and wraps ErrNoBlock when none of them has a kairos block.
func Load(files ...string) (*Loaded, error) {
	l := loader{out: Loaded{Config: Default(), Origins: Origins{}}}
	for _, file := range files {
		if err := l.file(file); err != nil {
			return nil, err
		}
	}
	return l.finish(files)
}

// LoadFile reads one complete configuration, such as the one that Apply wrote.
func LoadFile(file string) (Config, error) {
	l, err := Load(file)
	if err != nil {
		return Config{}, err
	}
	return l.Config, nil
}

// CheckPart says what is wrong with a file that may be one of several: its
// kairos block may lack the token, or be absent beside keys for the operating
// system. nil means that it can be merged with others.
func CheckPart(file, machineID string) error {
	l := loader{out: Loaded{Config: Default(), Origins: Origins{}}, part: true}
	if err := l.file(file); err != nil {
		return err
	}
	own, err := LoadSystem(machineID, file)
	var problems Problems
	if err != nil && !errors.As(err, &problems) {
		return err
	}
	l.add(problems)
	if len(l.out.Files) == 0 {
		l.problems = append(l.problems, l.nearBlock...)
	}
	if own != nil && !own.Empty() && len(l.problems) == 0 {
		return nil
	}
	_, err = l.finish([]string{file})
	return err
}

// CheckText is Check for the text of a file that is yet to be written, keys of
// cloud-init's included. name stands for the file in messages.
func CheckText(name string, raw []byte) error {
	l := loader{out: Loaded{Config: Default(), Origins: Origins{}}}
	l.parse(name, raw)
	// Any ID will do: it is that of another machine.
	system := systemLoader{machineID: strings.Repeat("0", 32), out: &System{}}
	system.file(name, raw)
	l.add(system.problems)
	_, err := l.finish([]string{name})
	return err
}

// HasBlock reports whether a file has a kairos block, right or wrong. A file
// that cannot be read or understood has none.
func HasBlock(file string) bool {
	raw, _, err := readFile(file)
	if err != nil {
		return false
	}
	doc, err := parseYAML(raw)
	if err != nil {
		return false
	}
	_, block, _ := findBlock(doc)
	return block != nil
}

// Check says what is wrong with a file that is meant to be a complete
// configuration; nil means that it would be taken.
func Check(file string) error {
	_, err := Load(file)
	return err
}

type loader struct {
	out                       Loaded
	part                      bool // the token may be in another file
	problems                  Problems
	nearBlock, notCloudConfig Problems // told only when there is no block at all
}

func (l *loader) file(file string) error {
	raw, mode, err := readFile(file)
	if err != nil {
		return err
	}
	l.parse(file, raw)
	if o, ok := l.out.Origins[root+".network_token"]; ok && o.File == file && mode&0o044 != 0 {
		l.out.Warnings = append(l.out.Warnings, fmt.Sprintf(
			"%s holds the network token and other users can read it (mode %04o); run `chmod 600 %s`", file, mode, file))
	}
	return nil
}

func readFile(file string) (raw []byte, mode fs.FileMode, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("read configuration: %w", err)
	}
	raw, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read configuration: %w", err)
	}
	return raw, info.Mode().Perm(), nil
}

// parse lays one file over what was read before.
func (l *loader) parse(file string, raw []byte) {
	whole := func(line int, reason, suggest string) Problem {
		return Problem{Origin{file, line}, "", reason, suggest}
	}
	if len(raw) > maxFile {
		l.problems = append(l.problems, whole(0, fmt.Sprintf("is larger than %d bytes", maxFile), ""))
		return
	}
	first, _, _ := bytes.Cut(raw, []byte{'\n'})
	named := isCloudConfig(raw)
	doc, err := parseYAML(raw)
	if err != nil {
		if named {
			l.problems = append(l.problems, whole(yamlLine(err), "is not YAML: "+yamlReason(err), ""))
		} else {
			l.notCloudConfig = append(l.notCloudConfig, whole(1, notCloudConfig(first), ""))
		}
		return
	}
	key, block, near := findBlock(doc)
	switch {
	case !named && block == nil:
		l.notCloudConfig = append(l.notCloudConfig, whole(1, notCloudConfig(first), ""))
	case !named:
		l.problems = append(l.problems, whole(1, notCloudConfig(first), ""))
	case block == nil && near != nil:
		l.nearBlock = append(l.nearBlock, Problem{Origin{file, near.Line}, shorten(near.Value), "unknown key", root})
	case block != nil:
		l.out.Files = append(l.out.Files, file)
		d := decoder{file: file, origins: l.out.Origins}
		if n := duplicates(doc, root); n != nil {
			d.fail(n, root, fmt.Sprintf("duplicate key, first on line %d", key.Line), "")
		}
		d.block(block, root, reflect.ValueOf(&l.out.Config).Elem())
		l.out.Origins[root] = Origin{file, key.Line}
		l.problems = append(l.problems, d.problems...)
	}
}

func notCloudConfig(first []byte) string {
	if strings.HasPrefix(strings.TrimLeft(string(first), "\ufeff# \t"), "cloud-config") {
		return "the first line must be exactly " + header
	}
	return "is not a cloud-config: the first line must be " + header
}

// finish checks what only the whole can show.
func (l *loader) finish(files []string) (*Loaded, error) {
	if len(l.out.Files) == 0 && len(l.problems) == 0 {
		if ps := append(l.notCloudConfig, l.nearBlock...); len(ps) > 0 {
			return nil, fmt.Errorf("%w: %w", ErrNoBlock, ps.sorted(files))
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: found no configuration file; write %s and a kairos block into /etc/kairos/config.yaml", ErrNoBlock, header)
		}
		return nil, fmt.Errorf("%w in %s", ErrNoBlock, strings.Join(files, ", "))
	}
	if !l.part && l.out.Config.NetworkToken.IsZero() && !l.complained(root+".network_token") && len(l.out.Files) > 0 {
		l.problems = append(l.problems, Problem{l.out.Origins[root], root + ".network_token",
			"is missing: make one with `kairos generate-token` and use it on every machine", ""})
	}
	if len(l.problems) > 0 {
		return nil, l.problems.sorted(files)
	}
	return &l.out, nil
}

// add takes problems of the same file that are not known yet: what is not YAML
// is so for whoever reads it.
func (l *loader) add(more Problems) {
	for _, p := range more {
		if !slices.Contains(l.problems, p) {
			l.problems = append(l.problems, p)
		}
	}
}

func (l *loader) complained(key string) bool {
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return p.Key == key })
}

// parseYAML returns the root of the only document, nil for an empty one.
func parseYAML(raw []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(&more); err == nil && more.Kind != 0 {
		return nil, fmt.Errorf("line %d: there is a second document", max(1, more.Line))
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return doc.Content[0], nil
}

// findBlock returns our key and its value, or the key that looks most like ours.
func findBlock(doc *yaml.Node) (key, block, near *yaml.Node) {
	if doc == nil || doc.Kind != yaml.MappingNode {
		return nil, nil, nil
	}
	for i := 0; i+1 < len(doc.Content); i += 2 {
		k := doc.Content[i]
		if k.Value == root {
			return k, doc.Content[i+1], nil
		}
		if nearest(k.Value, []string{root}) != "" {
			near = k
		}
	}
	return nil, nil, near
}

// duplicates returns the second key of this name, if there is one.
func duplicates(doc *yaml.Node, name string) *yaml.Node {
	seen := false
	for i := 0; i+1 < len(doc.Content); i += 2 {
		if k := doc.Content[i]; k.Value == name {
			if seen {
				return k
			}
			seen = true
		}
	}
	return nil
}

var yamlAt = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// yamlLine takes the line out of a YAML error, 0 if it names none.
func yamlLine(err error) int {
	if m := yamlAt.FindStringSubmatch(err.Error()); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			return n
		}
	}
	return 0
}

func yamlReason(err error) string {
	s := yamlAt.ReplaceAllString(err.Error(), "")
	return shorten(strings.TrimPrefix(s, "yaml: "))
}
