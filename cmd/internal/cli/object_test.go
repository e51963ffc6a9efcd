package cli

import (
	"encoding/json"
	"errors"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

// Programs read the YAML as they read the JSON, and people read it at all.
func TestToYAML(t *testing.T) {
	for _, tc := range []struct{ name, json, want string }{
		{"scalars", `{"a":1,"b":true,"c":null,"d":"x: y\n","e":1.5}`, "a: 1\nb: true\nc: null\nd: \"x: y\\n\"\ne: 1.5"},
		{"empty", `{"list":[],"map":{},"text":""}`, "list: []\nmap: {}\ntext: \"\""},
		{"lists", `{"a":["x",["y","z"]]}`, "a:\n  - \"x\"\n  - - \"y\"\n    - \"z\""},
		{"list of maps", `[{"a":1,"b":[2]},{}]`, "- a: 1\n  b:\n    - 2\n- {}"},
		{"keys that mean something else", `{"on":1,"a: b":2,"1":3,"":4,"n":5}`, "\"\": 4\n\"1\": 3\n\"a: b\": 2\n\"n\": 5\n\"on\": 1"},
		{"what looks like something else", `{"a":"null","b":"12","c":"~","d":"- x","e":"# y"}`, "a: \"null\"\nb: \"12\"\nc: \"~\"\nd: \"- x\"\ne: \"# y\""},
		{"large numbers keep their digits", `{"seq":9223372036854775809}`, "seq: 9223372036854775809"},
		{"a scalar alone", `"x"`, `"x"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := toYAML([]byte(tc.json))
			if err != nil || string(got) != tc.want {
				t.Fatalf("got %v\n%s\nwant\n%s", err, got, tc.want)
			}
			var read, meant any
			if err := errors.Join(yaml.Unmarshal(got, &read), json.Unmarshal([]byte(tc.json), &meant)); err != nil {
				t.Fatal(err)
			}
			if x, y := marshal(t, read), marshal(t, meant); x != y && tc.name != "large numbers keep their digits" {
				t.Errorf("it is read as %s, want %s", x, y)
			}
		})
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
