package config

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

func TestToYAML(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   any
		want string
	}{
		{"scalars", map[string]any{"a": 1, "b": true, "c": nil, "d": "x: y\n", "e": 1.5}, "a: 1\nb: true\nc: null\nd: \"x: y\\n\"\ne: 1.5\n"},
		{"empty", map[string]any{"list": []int{}, "map": map[string]int{}, "text": ""}, "list: []\nmap: {}\ntext: \"\"\n"},
		{"lists", map[string]any{"a": []string{"x", "y"}, "b": 1}, "a:\n  - \"x\"\n  - \"y\"\nb: 1\n"},
		{
			"list of maps", []any{map[string]any{"a": 1, "b": []int{2}}, map[string]any{"c": 3}},
			"- a: 1\n  b:\n    - 2\n- c: 3\n",
		},
		{"maps in maps", map[string]any{"a": map[string]any{"b": map[string]any{"c": 1}}}, "a:\n  b:\n    c: 1\n"},
		{"keys that mean something else", map[string]any{"on": 1, "a: b": 2, "1": 3, "role.wanted": 4}, "\"1\": 3\n'a: b': 2\n\"on\": 1\nrole.wanted: 4\n"},
		{"large numbers keep their digits", map[string]uint64{"seq": 1<<63 + 1}, "seq: 9223372036854775809\n"},
		{"what steers a terminal or ends a line is escaped", []string{"\x7f\u0080\u2028\x1b"}, "- \"\\x7F\\x80\\L\\e\"\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ToYAML(tc.in)
			if err != nil || string(got) != tc.want {
				t.Errorf("got %v\n%s\nwant\n%s", err, got, tc.want)
			}
		})
	}
}

// What a person wrote in any style arrives as YAML says that it reads.
func TestTextsOfEveryStyleArrive(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"folded, lines that go on", "- >\n  apt-get install \\\n    one \\\n    two\n", "apt-get install \\\n  one \\\n  two\n"},
		{"folded, one paragraph", "- >\n  echo one\n  two\n", "echo one two\n"},
		{"folded, two paragraphs", "- >-\n  one\n  two\n\n  three\n", "one two\nthree"},
		{"folded, empty lines kept", "- >+\n  one\n\n\n", "one\n\n\n"},
		{"folded, deeper first line", "- >2\n    one\n  two\n", "  one\ntwo\n"},
		{"literal", "- |\n  if x; then \\\n    y\n  fi\n", "if x; then \\\n  y\nfi\n"},
		{"literal, no last line end", "- |-\n  a\n  b\n", "a\nb"},
		{"literal, deeper first line", "- |2\n    a\n  b\n", "  a\nb\n"},
		{"literal, first line empty", "- |\n\n  a\n", "\na\n"},
		{"literal with a tab", "- |\n  all:\n  \tmake\n", "all:\n\tmake\n"},
		{"literal with a carriage return inside", "- \"a\\r\\nb\\n\"\n", "a\r\nb\n"},
		{"plain over lines", "- a\n  b\n\n  c\n", "a b\nc"},
		{"single quotes over lines", "- 'a\n\n\n  b '\n", "a\n\nb "},
		{"double quotes over lines", "- \"a \\\n   b\\n \"\n", "a b\n "},
		{"only spaces", "- '  '\n", "  "},
		{"only line ends", "- |+\n\n\n", "\n\n"},
		{"what looks like a number", "- '0123'\n", "0123"},
		{"what looks like true", "- 'yes'\n", "yes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, t.TempDir(), "a.yaml", "#cloud-config\nruncmd:\n"+tt.text)
			o, err := LoadSystem(machine, file)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := o.CloudConfig()
			if err != nil {
				t.Fatal(err)
			}
			doc, err := parseYAML(raw)
			if err != nil {
				t.Fatalf("%v in\n%s", err, raw)
			}
			if got := valueOf(doc, "runcmd").Content[0]; got.Value != tt.want || got.Tag != "!!str" {
				t.Errorf("got %q, want %q; written as\n%s", got.Value, tt.want, raw)
			}
		})
	}
}

// styles are those in which a scalar can be written.
var styles = map[string]yaml.Style{
	"plain": 0, "single": yaml.SingleQuotedStyle, "double": yaml.DoubleQuotedStyle,
	"literal": yaml.LiteralStyle, "folded": yaml.FoldedStyle, "tagged": yaml.TaggedStyle, "tagged folded": yaml.TaggedStyle | yaml.FoldedStyle,
}

// randomText is made of what YAML gives a meaning to.
func randomText(r *rand.Rand) string {
	parts := []string{" ", "  ", "\n", "\n\n", "\t", "\r", "\\", "\\\n", "a", "word", "- ", ": ", "#", " #", "'", `"`, "|", ">", "{{", "}", "[", ",", "&", "*", "!",
		"%", "@", "`", "---", "...", "?", "0", "yes", "~", "é", "\u0085", "\u00a0", "\u2028", "\ufeff", "\U0001f600", "\x00", "\x7f", strings.Repeat("long ", 30)}
	var b strings.Builder
	for range r.IntN(12) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return b.String()
}

// Every text arrives byte for byte, whatever its style and wherever it stands.
func TestAnyTextArrives(t *testing.T) {
	for name, style := range styles {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for range 300 {
				want := randomText(r)
				for place, in := range places(want, style) {
					budget := maxNodes
					tree, err := expand(in, &budget)
					if err != nil {
						t.Fatal(err)
					}
					raw, err := encodeDoc(tree)
					if err != nil {
						t.Fatalf("%s: %q: %v", place, want, err)
					}
					doc, err := parseYAML(raw)
					if err != nil {
						t.Fatalf("%s: %q: %v in\n%s", place, want, err, raw)
					}
					if got := shape(doc); got != shape(in) {
						t.Fatalf("%s: %q\ngot  %s\nwant %s\nwritten as\n%s", place, want, got, shape(in), raw)
					}
				}
			}
		})
	}
}

// The block itself goes to the daemons through a file: its texts arrive as well.
func TestAnyTextOfTheBlockArrives(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		c := Default()
		c.NetworkToken = newToken(t)
		env := strings.ReplaceAll(randomText(r), "\x00", "") // which no environment can hold, and is refused
		c.K3s.Env = map[string]Secret{"A": Secret(env), "B": "b"}
		raw, err := Render(c)
		if err != nil {
			t.Fatal(err)
		}
		l, err := CheckText("f", raw)
		if err != nil {
			t.Fatalf("%q: %v in\n%s", env, err, raw)
		}
		if got := l.Config.K3s.Env["A"].Reveal(); got != env {
			t.Fatalf("got %q, want %q, written as\n%s", got, env, raw)
		}
	}
}

// places puts a text where a cloud-config may have one.
func places(s string, style yaml.Style) map[string]*yaml.Node {
	leaf := func() *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: style} }
	key := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	mapping := func(nodes ...*yaml.Node) *yaml.Node {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: nodes}
	}
	list := func(style yaml.Style, nodes ...*yaml.Node) *yaml.Node {
		return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: style, Content: nodes}
	}
	return map[string]*yaml.Node{
		"value":   mapping(key("a"), leaf(), key("b"), key("c")),
		"item":    mapping(key("a"), list(0, leaf(), leaf()), key("b"), key("c")),
		"deep":    mapping(key("a"), list(0, list(0, leaf()), mapping(key("x"), leaf(), key("y"), list(0, leaf())))),
		"flow":    mapping(key("a"), list(yaml.FlowStyle, leaf(), leaf())),
		"the key": mapping(key("a"), mapping(leaf(), key("b"))),
		"last":    mapping(key("a"), leaf()),
	}
}

// shape is a tree without styles.
func shape(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return fmt.Sprintf("%s %q", n.Tag, n.Value)
	}
	var parts []string
	for _, c := range n.Content {
		parts = append(parts, shape(c))
	}
	return n.Tag + "(" + strings.Join(parts, ", ") + ")"
}
