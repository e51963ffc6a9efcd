package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

type node struct {
	Type                 string           `json:"type"`
	Properties           map[string]*node `json:"properties"`
	Items                *node            `json:"items"`
	Enum                 []any            `json:"enum"`
	Const                any              `json:"const"`
	Default              any              `json:"default"`
	Description          string           `json:"description"`
	Required             []string         `json:"required"`
	AdditionalProperties json.RawMessage  `json:"additionalProperties"`
}

func loadSchema(t *testing.T) *node {
	t.Helper()
	raw, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var whole node
	if err := json.Unmarshal(raw, &whole); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(whole.Required, []string{root}) || len(whole.AdditionalProperties) != 0 {
		t.Error("the rest of a cloud-config is not ours, and our block is required")
	}
	return whole.Properties[root]
}

// flatten lists all keys that the schema has.
func flatten(prefix string, n *node, into map[string]*node) {
	for name, p := range n.Properties {
		into[prefix+"."+name] = p
		flatten(prefix+"."+name, p, into)
	}
}

// Schema and decoder must agree on every key: on its being there, on its type,
// on its default, and on what is refused.
func TestSchemaAgreesWithDecoder(t *testing.T) {
	block0 := loadSchema(t)
	schema := map[string]*node{}
	flatten(root, block0, schema)
	if !slices.Equal(block0.Required, []string{"network_token"}) {
		t.Errorf("required %q", block0.Required)
	}
	var keys []string
	for k := range schema {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	want := keysOf(root, reflect.TypeFor[Config]())
	slices.Sort(want)
	if !slices.Equal(keys, want) {
		t.Fatalf("schema has\n%q, the decoder\n%q", keys, want)
	}
	samples := map[string]string{"string": `"x"`, "boolean": "true", "integer": "1", "array": "[]", "object": "{}"}
	tok := newToken(t)
	for _, key := range keys {
		n := schema[key]
		if n.Description == "" {
			t.Errorf("%s has no description", key)
		}
		if n.Type == "object" && n.Properties != nil && string(n.AdditionalProperties) != "false" {
			t.Errorf("%s allows unknown keys", key)
		}
		for kind, value := range samples {
			reason := decodeReason(t, tok.Reveal(), key, value)
			wrongType := strings.Contains(reason, ": want ") && strings.Contains(reason, ", got ")
			if (kind == n.Type) == wrongType {
				t.Errorf("%s is of type %s in the schema; the decoder says to %s: %q", key, n.Type, value, reason)
			}
		}
		for _, v := range n.Enum {
			raw, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if reason := decodeReason(t, tok.Reveal(), key, string(raw)); reason != "" {
				t.Errorf("%s: %s is in the schema, the decoder says %s", key, raw, reason)
			}
		}
		for _, v := range []any{n.Const, n.Default} {
			if v == nil {
				continue
			}
			raw, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if reason := decodeReason(t, tok.Reveal(), key, string(raw)); reason != "" {
				t.Errorf("%s: the schema's %s is refused: %s", key, raw, reason)
			}
		}
	}
}

// decodeReason sets one dotted key to a YAML value and returns what the decoder says.
func decodeReason(t *testing.T, tok, key, value string) string {
	t.Helper()
	parts := strings.Split(strings.TrimPrefix(key, root+"."), ".")
	text := "#cloud-config\nkairos:\n"
	if key != root+".network_token" {
		text += "  network_token: " + tok + "\n"
	}
	for i, p := range parts {
		text += strings.Repeat("  ", i+1) + p + ":"
		if i < len(parts)-1 {
			text += "\n"
		}
	}
	if _, err := Check(write(t, t.TempDir(), "a.yaml", text+" "+value+"\n")); err != nil {
		return err.Error()
	}
	return ""
}

func TestNearest(t *testing.T) {
	words := []string{"network_id", "network_token", "mtu", "mdns", "dns"}
	for word, want := range map[string]string{"network_idd": "network_id", "netwrok_id": "network_id", "NetworkToken": "network_token", "mut": "mtu",
		"mdn": "mdns", "dnss": "dns", "": "", "zzz": "", "interface": ""} {
		if got := nearest(word, words); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	tok := newToken(f)
	f.Add([]byte(block(tok, "overlay: {mtu: 1400, listen: ['0.0.0.0:1']}\nk3s: {env: {A: x}, args: [--a=b]}")))
	f.Add([]byte("#cloud-config\nkairos: &a {overlay: *a}\n"))
	f.Add([]byte("#cloud-config\na: &a [*a, *a]\nkairos:\n  overlay: {peers: *a}\n"))
	f.Add([]byte("#cloud-config\nkairos: !!binary x\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := newLoader()
		l.parse(newSource("f", raw))
		out, err := l.finish([]string{"f"})
		if err != nil {
			return
		}
		// What is taken can be written and is read back as the same.
		text, err := Render(out.Config)
		if err != nil {
			t.Fatal(err)
		}
		again := newLoader()
		again.parse(newSource("g", text))
		back, err := again.finish([]string{"g"})
		if err != nil {
			t.Fatalf("own output refused: %v", err)
		}
		second, err := Render(back.Config)
		if err != nil || string(second) != string(text) {
			t.Fatalf("changes when written: %v", err)
		}
	})
}
