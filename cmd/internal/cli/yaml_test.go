package cli

import "testing"

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
		{"keys that mean something else", map[string]any{"on": 1, "a b": 2, "1": 3, "role.wanted": 4}, "\"1\": 3\n\"a b\": 2\n\"on\": 1\nrole.wanted: 4\n"},
		{"large numbers keep their digits", map[string]uint64{"seq": 1<<63 + 1}, "seq: 9223372036854775809\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := toYAML(tc.in)
			if err != nil || string(got) != tc.want {
				t.Errorf("got %v\n%s\nwant\n%s", err, got, tc.want)
			}
		})
	}
}
