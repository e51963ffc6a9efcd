package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// madeUp are defaults that no value shows: they follow from something else.
var madeUp = map[string]string{
	"network_token": "required",
	"overlay.cidr":  "chosen by the token",
	"overlay.mtu":   "`0` (1420)",
	"k3s.image":     "a pinned k3s",
	"os.verify_key": "no check",
}

// README's table is the schema for people: the same keys, with the same defaults.
func TestReadmeHasEveryKey(t *testing.T) {
	rows := readmeRows(t)
	if got, want := slices.Sorted(maps.Keys(rows)), leafKeys(); !slices.Equal(got, want) {
		t.Fatalf("README has\n%q, the block\n%q", got, want)
	}
	schema := map[string]*node{}
	flatten(root, loadSchema(t), schema)
	for key, got := range rows {
		want, ok := madeUp[key]
		if !ok {
			want = "`" + defaultText(t, schema[root+"."+key]) + "`"
		}
		if got != want {
			t.Errorf("%s: README says %s by default, it is %s", key, got, want)
		}
	}
}

// defaultText writes a default as people do in YAML.
func defaultText(t *testing.T, n *node) string {
	t.Helper()
	switch v := n.Default.(type) {
	case nil: // the schema leaves out what is zero
		return map[string]string{"string": `""`, "boolean": "false", "integer": "0", "array": "[]", "object": "{}"}[n.Type]
	case string:
		return v
	case bool, float64:
		return fmt.Sprint(v)
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(raw), `","`, `", "`)
	}
}

// readmeRows returns the default column of the configuration table by key.
func readmeRows(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(raw), "\n| key | default | meaning |\n")
	if !ok {
		t.Fatal("README has no table of keys")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	key := regexp.MustCompile("`([a-z0-9_.]+)`")
	rows := map[string]string{}
	for _, line := range strings.Split(table, "\n")[1:] {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.TrimSpace(cells[3]) == "" {
			t.Fatalf("not a row of key, default and meaning: %s", line)
		}
		for _, m := range key.FindAllStringSubmatch(cells[1], -1) {
			if _, twice := rows[m[1]]; twice {
				t.Errorf("%s is there twice", m[1])
			}
			rows[m[1]] = strings.TrimSpace(cells[2])
		}
	}
	return rows
}

// The example of the README is a configuration.
func TestReadmeExamples(t *testing.T) {
	raw, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	tok := newToken(t).Reveal()
	examples := regexp.MustCompile("(?s)```yaml\n(#cloud-config\n.*?)```").FindAllStringSubmatch(string(raw), -1)
	if len(examples) == 0 {
		t.Fatal("README shows no configuration")
	}
	for _, m := range examples {
		text := regexp.MustCompile(`network_token: .*`).ReplaceAllString(m[1], "network_token: "+tok)
		if _, err := Check(write(t, t.TempDir(), "a.yaml", text)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}
