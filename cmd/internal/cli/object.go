package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// WriteObject makes v the command's result as output says: json or yaml, with the
// same names and values.
func (e *Env) WriteObject(v any, output string) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err == nil && output == "yaml" {
		text, err = toYAML(text)
	}
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	e.Result().Write(append(text, '\n'))
	return nil
}

// toYAML writes JSON in YAML's form for people. A YAML package reads all of YAML
// too, which would make a person's program larger for nothing.
func toYAML(text []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber() // all digits of a large number
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	lines, err := yamlLines(tree)
	return []byte(strings.Join(lines, "\n")), err
}

// yamlLines are the lines of a value. Texts and keys stay in JSON's quotes, in which
// YAML reads the same, apart from keys that nobody takes for anything else.
func yamlLines(v any) ([]string, error) {
	var out []string
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			key, err := yamlKey(k)
			if err != nil {
				return nil, err
			}
			lines, err := yamlLines(v[k])
			if err != nil {
				return nil, err
			}
			if isScalar(v[k]) {
				out = append(out, key+": "+lines[0])
				continue
			}
			out = append(out, key+":")
			for _, l := range lines {
				out = append(out, "  "+l)
			}
		}
	case []any:
		for _, item := range v {
			lines, err := yamlLines(item)
			if err != nil {
				return nil, err
			}
			for i, l := range lines {
				out = append(out, []string{"- ", "  "}[min(i, 1)]+l)
			}
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	text, err := json.Marshal(v) // also an empty map or list
	return []string{string(text)}, err
}

// isScalar reports whether a value is one line after its key.
func isScalar(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return true
}

// yamlWords mean something in some version of YAML.
var yamlWords = []string{"", "y", "n", "yes", "no", "on", "off", "true", "false", "null"}

func yamlKey(k string) (string, error) {
	if strings.Trim(k, "abcdefghijklmnopqrstuvwxyz_") == "" && !slices.Contains(yamlWords, k) {
		return k, nil
	}
	quoted, err := json.Marshal(k)
	return string(quoted), err
}
