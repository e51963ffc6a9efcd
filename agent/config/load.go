package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

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
	Warnings Problems // what is not refused and should be told
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
	l := newLoader()
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

// Check reads a file that is meant to be a complete configuration, keys of
// cloud-init's included. The error says all that a machine would refuse of it.
func Check(file string) (*Loaded, error) {
	s, err := openSource(file)
	if err != nil {
		return nil, err
	}
	l := newLoader()
	if reason := misnamed("", filepath.Base(file)); reason != "" {
		l.warn(Origin{File: file}, "", reason)
	}
	return l.whole(s)
}

// CheckText is Check for the text of a file that is yet to be written. name
// stands for the file in messages.
func CheckText(name string, raw []byte) (*Loaded, error) {
	return newLoader().whole(newSource(name, raw))
}

// CheckPart says what is wrong with a file that may be one of several: its
// kairos block may lack the token, or be absent beside keys for the operating
// system. nil means that it can be merged with others.
func CheckPart(file, machineID string) error {
	l := newLoader()
	l.part = true
	s, err := openSource(file)
	if err != nil {
		return err
	}
	own := l.both(s, machineID)
	if len(l.out.Files) == 0 {
		l.problems = append(l.problems, l.nearBlock...)
	}
	if !own.Empty() && len(l.problems) == 0 {
		return nil
	}
	_, err = l.finish([]string{file})
	return err
}

// HasBlock reports whether a file has a kairos block, right or wrong. A file
// that cannot be read or understood has none.
func HasBlock(file string) bool {
	s, err := openSource(file)
	_, block := findBlock(s.doc)
	return err == nil && block != nil
}

type loader struct {
	out                       Loaded
	part                      bool // the token may be in another file
	problems                  Problems
	nearBlock, notCloudConfig Problems // errors only when there is no block at all

	skipped  Problems          // those of notCloudConfig in which something stands
	earlier  map[string]Origin // lists for cloud-init, by dotted key
	replaced Problems          // such lists that a later file replaces
	mergeHow bool              // a file asks for another way of merging
}

func newLoader() *loader {
	return &loader{out: Loaded{Config: Default(), Origins: Origins{}}, earlier: map[string]Origin{}}
}

func (l *loader) file(file string) error {
	s, err := openSource(file)
	if err == nil {
		l.parse(s)
	}
	return err
}

// whole checks one text as a complete configuration. Any machine's ID will do: the
// names that a template makes of them do not differ in what is wrong with them.
func (l *loader) whole(s source) (*Loaded, error) {
	l.both(s, strings.Repeat("0", 32))
	return l.finish([]string{s.file})
}

// parse lays one file over what was read before.
func (l *loader) parse(s source) {
	key, block := findBlock(s.doc)
	switch {
	case s.wrong != nil && !s.named && block == nil:
		l.notCloudConfig = append(l.notCloudConfig, *s.wrong)
		if !s.empty {
			l.skipped = append(l.skipped, *s.wrong)
		}
		return
	case s.wrong != nil:
		l.problems = append(l.problems, *s.wrong)
		return
	}
	l.nearBlock = append(l.nearBlock, nearBlocks(s.file, s.doc)...)
	l.advise(s)
	if block != nil {
		l.out.Files = append(l.out.Files, s.file)
		d := decoder{file: s.file, origins: l.out.Origins}
		if n := duplicates(s.doc, root); n != nil {
			d.fail(n, root, fmt.Sprintf("duplicate key, first on line %d", key.Line), "")
		}
		d.block(block, root, reflect.ValueOf(&l.out.Config).Elem())
		l.out.Origins[root] = Origin{s.file, key.Line}
		l.problems = append(l.problems, d.problems...)
		if l.out.Origins[root+".network_token"].File == s.file && s.mode&0o044 != 0 {
			l.warn(Origin{File: s.file}, "", fmt.Sprintf("holds the network token and other users can read it (mode %04o); run `chmod 600 %s`", s.mode, s.file))
		}
	}
}

// both lays one file over what was read before, and checks its keys for the operating
// system by what hands them to cloud-init.
func (l *loader) both(s source, machineID string) *System {
	l.parse(s)
	system := systemLoader{machineID: machineID, out: &System{}}
	system.add(s)
	for _, p := range system.problems {
		if !slices.Contains(l.problems, p) { // what is not YAML is so for whoever reads it
			l.problems = append(l.problems, p)
		}
	}
	return system.out
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
	l.out.Warnings = l.warnings(files)
	return &l.out, nil
}

func (l *loader) warn(at Origin, key, reason string) {
	l.out.Warnings = append(l.out.Warnings, Problem{at, key, reason, ""})
}

func (l *loader) complained(key string) bool {
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return p.Key == key })
}

// findBlock returns our key and its value.
func findBlock(doc *yaml.Node) (key, block *yaml.Node) {
	for k, v := range topLevel(doc) {
		if k.Value == root {
			return k, v
		}
	}
	return nil, nil
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
