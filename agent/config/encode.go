package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// written begins every file that this package makes.
const written = header + "\n# Written by kairos-agent; edits are lost.\n"

// ToYAML writes v as YAML with the names and values of its JSON form.
func ToYAML(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode as json: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // all digits of a large number
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("decode the json: %w", err)
	}
	return encode(fromJSON(tree), "")
}

// fromJSON is the node of a value that JSON can hold. Texts are in quotes, as in
// JSON, so that no reader of any version of YAML takes one for something else.
func fromJSON(v any) *yaml.Node {
	switch v := v.(type) {
	case map[string]any:
		out := &yaml.Node{Kind: yaml.MappingNode}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out.Content = append(out.Content, text(k), fromJSON(v[k]))
		}
		return out
	case []any:
		out := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range v {
			out.Content = append(out.Content, fromJSON(item))
		}
		return out
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	case string:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v, Style: yaml.DoubleQuotedStyle}
	default: // a number or a boolean, which JSON and YAML write alike
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v)}
	}
}

// isOldWord reports whether YAML 1.1, which PyYAML reads and so cloud-init, takes
// a plain word for true or false and YAML 1.2 does not.
func isOldWord(s string) bool {
	return slices.Contains([]string{"y", "n", "yes", "no", "on", "off"}, strings.ToLower(s))
}

// encodeDoc writes a cloud-config; nil is one without keys.
func encodeDoc(doc *yaml.Node) ([]byte, error) {
	if doc == nil {
		doc = &yaml.Node{Kind: yaml.MappingNode}
	}
	out, err := encode(doc, written)
	if err != nil {
		return nil, fmt.Errorf("encode the cloud-config: %w", err)
	}
	return out, nil
}

func encode(doc *yaml.Node, before string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(before)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// text is a string scalar. The encoder puts "123" and "true" in quotes by itself.
func text(s string) *yaml.Node {
	style := styleFor(s, 0)
	if isOldWord(s) {
		style = yaml.DoubleQuotedStyle
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: style}
}

// styleFor is the style in which a text arrives as it is: the given one, or double
// quotes, in which everything can be written. A folded text is never written as
// one: the encoder folds lines that the reader does not unfold. A literal text
// stays one where nothing is left to a reader's judgement, such as how far the first
// line is indented: the instance ID is a hash of what is written.
func styleFor(value string, style yaml.Style) yaml.Style {
	const scalar = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	lines := strings.Contains(value, "\n")
	switch {
	case !isPrintable(value) || style&yaml.FoldedStyle != 0:
	case !lines && style&yaml.LiteralStyle == 0:
		return style
	case lines && value[0] > ' ' && style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0:
		return style&^scalar | yaml.LiteralStyle
	}
	return style&^scalar | yaml.DoubleQuotedStyle
}

// isPrintable reports whether a text consists of line feeds and of characters that
// every reader takes for themselves: none that steers, none that also ends a line.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '\n' && (r < ' ' || r > '~' && r < 0xa0 || r == 0x2028 || r == 0x2029 || r > 0xd7ff)
	})
}

// expand copies a tree with every alias replaced by what it stands for: the
// anchor may be in a part that is left out. Comments go, they may quote what
// was left out too.
func expand(n *yaml.Node, budget *int) (*yaml.Node, error) {
	if *budget--; *budget < 0 {
		return nil, fmt.Errorf("has more than %d values, counting aliases", maxNodes)
	}
	n = resolve(n)
	out := &yaml.Node{Kind: n.Kind, Style: n.Style, Tag: n.Tag, Value: n.Value, Line: n.Line, Column: n.Column}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		out.Style = styleFor(n.Value, n.Style)
	}
	if n.Tag == "!!merge" {
		out.Tag = "" // written as the plain << that every reader knows
	}
	for _, c := range n.Content {
		copied, err := expand(c, budget)
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, copied)
	}
	return out, nil
}
