package config

import (
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// maxNodes bounds what aliases may blow a cloud-config up to. The largest
// honest ones have some thousand nodes.
const maxNodes = 100_000

// hostnameKey is the one key of cloud-init's that we look into: it may be a template.
const hostnameKey = "hostname"

// System is the part of cloud-configs that is cloud-init's business: every key but
// the kairos block, merged key by key like that block. Later files win,
// mappings are merged, lists are replaced as a whole. It may hold secrets
// (password hashes, files' contents) and is for root's eyes only.
type System struct {
	Files []string // those that have such keys, in the order of reading
	doc   *yaml.Node
	host  Hostname
}

// Hostname is the name that a configuration gives the machine.
type Hostname struct {
	Name     string // with a template filled in; "" where no file names the machine
	Template bool   // it was one
	Origin   Origin
}

// LoadSystem reads the keys of the operating system out of files. A file that is
// not a cloud-config is passed over: Load tells of it where that matters.
// machineID fills templates. The error is a Problems when files are at fault.
func LoadSystem(machineID string, files ...string) (*System, error) {
	out := &System{}
	l := systemLoader{machineID: machineID, out: out}
	for _, file := range files {
		s, err := openSource(file)
		if err != nil {
			return nil, err
		}
		l.add(s)
	}
	if len(l.problems) > 0 {
		return nil, l.problems.sorted(files)
	}
	return out, nil
}

// Empty reports whether no file has a key for the operating system.
func (s *System) Empty() bool { return len(s.Files) == 0 }

// Hostname is the last name that a file gives.
func (s *System) Hostname() Hostname { return s.host }

// HasNetwork reports whether the files configure network interfaces, in
// cloud-init's format.
func (s *System) HasNetwork() bool { return valueOf(s.doc, "network") != nil }

// CloudConfig returns the merged keys as a cloud-config that does not depend
// on how the files were written: no comments, aliases or templates are left.
func (s *System) CloudConfig() ([]byte, error) { return encodeDoc(s.doc) }

// NetworkConfig returns the key `network` as NoCloud's network-config; nil
// where there is none.
func (s *System) NetworkConfig() ([]byte, error) {
	v := valueOf(s.doc, "network")
	if v == nil {
		return nil, nil
	}
	return encodeDoc(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text("network"), v}})
}

type systemLoader struct {
	machineID string
	out       *System
	problems  Problems
}

func (l *systemLoader) add(s source) {
	file, doc := s.file, s.doc
	fail := func(n *yaml.Node, key, reason string) {
		l.problems = append(l.problems, Problem{Origin{file, n.Line}, key, reason, ""})
	}
	switch {
	case !s.named:
		return
	case s.wrong != nil:
		l.problems = append(l.problems, *s.wrong)
		return
	case doc == nil || isNull(doc):
		return
	case doc.Kind != yaml.MappingNode:
		fail(doc, "", "want a mapping, got "+describe(doc))
		return
	}
	budget := maxNodes
	own, err := expand(without(doc, root), &budget)
	if err != nil {
		fail(doc, "", err.Error())
		return
	}
	if len(own.Content) == 0 {
		return
	}
	if n := valueOf(own, hostnameKey); n != nil {
		h, reason := l.hostname(n)
		if reason != "" {
			fail(n, hostnameKey, reason)
			return
		}
		h.Origin = Origin{file, n.Line}
		l.out.host = h
		given := text(h.Name)
		n.Value, n.Tag, n.Style = given.Value, given.Tag, given.Style
	}
	if n := valueOf(own, "fqdn"); n != nil && strings.Contains(n.Value, "{{") {
		fail(n, "fqdn", "takes no template: use hostname")
		return
	}
	l.out.Files = append(l.out.Files, file)
	l.out.doc = merge(l.out.doc, own)
}

func (l *systemLoader) hostname(n *yaml.Node) (Hostname, string) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		hint := ""
		if n.Kind == yaml.MappingNode { // {{ ... }} without quotes is a mapping to YAML
			hint = "; put a template in quotes"
		}
		return Hostname{}, "want a text, got " + describe(n) + hint
	}
	name, err := RenderHostname(n.Value, l.machineID)
	if err != nil {
		return Hostname{}, err.Error()
	}
	return Hostname{Name: name, Template: name != n.Value}, ""
}

// without returns a mapping that lacks a key.
func without(doc *yaml.Node, key string) *yaml.Node {
	out := *doc
	out.Content = nil
	for i := 0; i+1 < len(doc.Content); i += 2 {
		if doc.Content[i].Value != key {
			out.Content = append(out.Content, doc.Content[i], doc.Content[i+1])
		}
	}
	return &out
}

// valueOf returns the last value of a key, nil if there is none.
func valueOf(doc *yaml.Node, key string) *yaml.Node {
	var out *yaml.Node
	if doc == nil || doc.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(doc.Content); i += 2 {
		if doc.Content[i].Value == key {
			out = doc.Content[i+1]
		}
	}
	return out
}

// merge lays one mapping over another.
func merge(under, over *yaml.Node) *yaml.Node {
	if under == nil || under.Kind != yaml.MappingNode || over.Kind != yaml.MappingNode {
		return over
	}
	out := &yaml.Node{Kind: yaml.MappingNode, Content: slices.Clone(under.Content)}
	for i := 0; i+1 < len(over.Content); i += 2 {
		k, v := over.Content[i], over.Content[i+1]
		at := -1
		for j := 0; j+1 < len(out.Content); j += 2 {
			if out.Content[j].Kind == yaml.ScalarNode && k.Kind == yaml.ScalarNode && out.Content[j].Value == k.Value {
				at = j + 1
			}
		}
		if at < 0 {
			out.Content = append(out.Content, k, v)
			continue
		}
		out.Content[at] = merge(out.Content[at], v)
	}
	return out
}
