package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// header is the first line of a cloud-config.
const header = "#cloud-config"

// maxFile bounds what is read of one file, in bytes.
const maxFile = 1 << 20

// source is one file's text, read in one way for all who look into it.
type source struct {
	file  string
	mode  fs.FileMode
	named bool       // its first line says that it is a cloud-config
	doc   *yaml.Node // nil where nothing stands in it, or something is wrong
	empty bool       // nothing but comments stands in it
	wrong *Problem   // why it cannot be read; of a file that is not named, why not
}

// newSource reads a text. A byte order mark, which some editors put before it,
// is no part of it.
func newSource(file string, raw []byte) source {
	s := source{file: file}
	if len(raw) > maxFile {
		s.named = true // whatever it is: nobody reads on to find out
		s.fail(0, fmt.Sprintf("is larger than %d bytes", maxFile))
		return s
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	first, _, _ := bytes.Cut(raw, []byte{'\n'})
	s.named = strings.TrimRight(string(first), " \t\r") == header
	doc, err := parseYAML(raw)
	switch {
	case err == nil:
		s.doc, s.empty = doc, doc == nil || isNull(doc)
	case s.named:
		s.fail(whyNotYAML(raw, err))
	}
	if !s.named {
		s.fail(1, whyNotNamed(first))
	}
	return s
}

func (s *source) fail(line int, reason string) {
	s.wrong = &Problem{Origin{s.file, line}, "", reason, ""}
}

// whyNotNamed says what is wrong with the first line.
func whyNotNamed(first []byte) string {
	line := strings.TrimSpace(string(first))
	switch {
	case bytes.HasPrefix(first, []byte{0xff, 0xfe}), bytes.HasPrefix(first, []byte{0xfe, 0xff}):
		return "is UTF-16: save the file as UTF-8"
	case strings.HasPrefix(strings.TrimLeft(strings.ToLower(line), "# \t"), "cloud-config"):
		return "the first line must be exactly " + header
	case strings.HasPrefix(strings.TrimLeft(line, "# \t"), "template:"):
		return "templates such as Jinja's are not filled in: the first line must be " + header
	}
	return "is not a cloud-config: the first line must be " + header
}

// whyNotYAML says what is wrong with a text and where. The parser names no line of
// a character that it cannot read, and of a tab the line before at times.
func whyNotYAML(raw []byte, err error) (line int, reason string) {
	at := 1
	for i := 0; i < len(raw); {
		r, size := utf8.DecodeRune(raw[i:])
		switch {
		case r == '\n':
			at++
		case r == utf8.RuneError && size == 1:
			return at, fmt.Sprintf("the byte 0x%02X is not UTF-8: save the file as UTF-8, not as Latin-1 or the like", raw[i])
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r > '~' && r < 0xa0 && r != 0x85:
			return at, fmt.Sprintf("the control character 0x%02X cannot stand in YAML: remove it, or write it as \"\\x%02X\" in double quotes", r, r)
		}
		i += size
	}
	line, reason = yamlLine(err), "is not YAML: "+yamlReason(err)
	start := strings.Contains(reason, "cannot start any token")
	if !start && !strings.Contains(reason, "tab character") {
		return line, reason
	}
	for i, text := range strings.Split(string(raw), "\n") {
		switch m := reservedMark.FindStringSubmatch(text); {
		case i+1 < line || start && i+1 > line:
		case tabbed.MatchString(text):
			return i + 1, "a tab stands where YAML takes spaces only: indent with spaces"
		case start && m != nil:
			return line, fmt.Sprintf("no value in YAML begins with %s: put it in quotes", m[1])
		}
	}
	return line, reason
}

var (
	tabbed       = regexp.MustCompile(`^[ -]*\t`)                // a line with a tab before its content
	reservedMark = regexp.MustCompile("(?:^|[\\s\\[{,])([@`%])") // what may begin no plain text
)

func openSource(file string) (s source, err error) {
	f, err := os.Open(file)
	if err != nil {
		return s, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return s, fmt.Errorf("read configuration: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return s, fmt.Errorf("read configuration: %w", err)
	}
	s = newSource(file, raw)
	s.mode = info.Mode().Perm()
	return s, nil
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
