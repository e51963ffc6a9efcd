package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// toYAML writes v as YAML with the names of its JSON form. Strings are written
// as JSON strings, which every YAML reader takes (YAML 1.2, section 1.3), so
// there is nothing to escape wrongly.
func toYAML(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode as json: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("decode the json: %w", err)
	}
	var out bytes.Buffer
	writeYAML(&out, tree, 0)
	return out.Bytes(), nil
}

// writeYAML writes one value; the cursor is where the value's first line begins.
func writeYAML(out *bytes.Buffer, v any, depth int) {
	switch v := v.(type) {
	case map[string]any:
		writeMap(out, v, depth)
	case []any:
		for i, item := range v {
			indent(out, i, depth)
			out.WriteString("- ")
			writeYAML(out, item, depth+1)
		}
	default:
		out.WriteString(scalar(v) + "\n")
	}
}

func writeMap(out *bytes.Buffer, m map[string]any, depth int) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for i, k := range keys {
		indent(out, i, depth)
		out.WriteString(key(k) + ":")
		if isEmpty(m[k]) || !isTree(m[k]) {
			out.WriteString(" " + scalar(m[k]) + "\n")
			continue
		}
		out.WriteString("\n")
		indent(out, 1, depth+1)
		writeYAML(out, m[k], depth+1)
	}
}

// indent starts a line, unless it is the first of a value, whose cursor stands already.
func indent(out *bytes.Buffer, i, depth int) {
	if i > 0 {
		out.WriteString(strings.Repeat("  ", depth))
	}
}

func isTree(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

func scalar(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "{}"
	case []any:
		return "[]"
	case nil:
		return "null"
	case string:
		return quote(v)
	default:
		return fmt.Sprint(v)
	}
}

// key writes a map's key plainly where no reader could take it for something else.
func key(k string) string {
	if k == "" || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz_.-") != "" || strings.HasPrefix(k, "-") ||
		k == "y" || k == "n" || k == "yes" || k == "no" || k == "on" || k == "off" || k == "true" || k == "false" || k == "null" {
		return quote(k)
	}
	return k
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""` // strings always encode
	}
	return string(b)
}
