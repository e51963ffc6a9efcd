package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/kairos-io/kairos/overlay/token"
)

// root is the key of our block, and the first part of every dotted key.
const root = "kairos"

// decoder lays one file over a Config and collects what is wrong with it.
type decoder struct {
	file     string
	origins  Origins
	problems Problems
}

func (d *decoder) fail(n *yaml.Node, key, reason, suggest string) {
	d.problems = append(d.problems, Problem{Origin{d.file, n.Line}, key, reason, suggest})
}

// leaf says how a Go type is read from a node. What it gets is resolved and not null.
type leaf struct {
	want string // for messages: what belongs here
	read func(d *decoder, n *yaml.Node, key string, into reflect.Value)
}

// leaves is every type that a field of Config may have, apart from structs.
var leaves = map[reflect.Type]leaf{
	reflect.TypeFor[token.Token]():       {"a text", readToken},
	reflect.TypeFor[string]():            {"a text", readText},
	reflect.TypeFor[Role]():              {"a text", readText},
	reflect.TypeFor[LogLevel]():          {"a text", readText},
	reflect.TypeFor[bool]():              {"true or false", readBool},
	reflect.TypeFor[int]():               {"a whole number", readInt},
	reflect.TypeFor[netip.Prefix]():      {"a text", readPrefix},
	reflect.TypeFor[[]string]():          {"a list", readList[string]},
	reflect.TypeFor[[]netip.AddrPort]():  {"a list", readList[netip.AddrPort]},
	reflect.TypeFor[map[string]Secret](): {"a mapping", readEnv},
	reflect.TypeFor[PublicKey]():         {"a text", readPublicKey},
	reflect.TypeFor[time.Duration]():     {"a text", readDuration},
}

// block reads a mapping into a struct.
func (d *decoder) block(n *yaml.Node, key string, into reflect.Value) {
	n = resolve(n)
	if isNull(n) { // "overlay:" with everything under it commented out
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, key, "want a mapping, got "+describe(n), "")
		return
	}
	fields := fieldsOf(into.Type())
	d.pairs(n, key, func(name string, k, v *yaml.Node) {
		at := key + "." + name
		i, ok := fields[name]
		if !ok {
			d.fail(k, at, "unknown key", suggestKey(key, name, into.Type()))
			return
		}
		field := into.Field(i)
		if field.Kind() == reflect.Struct && leaves[field.Type()].read == nil {
			d.block(v, at, field)
			return
		}
		d.value(v, at, field)
	})
}

// pairs calls f for every key of a mapping, once per name.
func (d *decoder) pairs(n *yaml.Node, key string, f func(name string, k, v *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Tag == "!!merge":
			d.fail(k, key, "merge keys (<<) are not supported: write the keys out", "")
		case k.Kind != yaml.ScalarNode:
			d.fail(k, key, "a key must be a plain word, got "+describe(k), "")
		case seen[k.Value] != 0:
			d.fail(k, key+"."+shorten(k.Value), fmt.Sprintf("duplicate key, first on line %d", seen[k.Value]), "")
		default:
			seen[k.Value] = k.Line
			f(k.Value, k, v)
		}
	}
}

// value reads one leaf and, when it is good, remembers where it stands.
func (d *decoder) value(n *yaml.Node, key string, into reflect.Value) {
	n = resolve(n)
	l := leaves[into.Type()]
	if isNull(n) {
		d.fail(n, key, "has no value: want "+l.want+"; leave the key out for the default", "")
		return
	}
	before := len(d.problems)
	fresh := reflect.New(into.Type()).Elem()
	if into.Kind() == reflect.Map { // mappings merge, everything else is replaced
		fresh.Set(into)
	}
	l.read(d, n, key, fresh)
	if len(d.problems) > before {
		return
	}
	if check, ok := checks[key]; ok {
		if reason, suggest := check(fresh.Interface()); reason != "" {
			d.fail(n, key, reason, suggest)
			return
		}
	}
	into.Set(fresh)
	d.origins[key] = Origin{d.file, n.Line}
}

// scalar returns the text of a scalar with this YAML tag.
func (d *decoder) scalar(n *yaml.Node, key, tag, want string) (string, bool) {
	if n.Kind == yaml.ScalarNode && n.Tag == tag {
		return n.Value, true
	}
	hint := ""
	if tag == "!!str" && n.Kind == yaml.ScalarNode {
		hint = ": put it in quotes"
	}
	suggest := ""
	if tag == "!!bool" && n.Kind == yaml.ScalarNode {
		suggest = map[string]string{"yes": "true", "on": "true", "no": "false", "off": "false",
			"true": "true", "false": "false"}[strings.ToLower(n.Value)]
	}
	d.fail(n, key, "want "+want+", got "+describe(n)+hint, suggest)
	return "", false
}

func readToken(d *decoder, n *yaml.Node, key string, into reflect.Value) {
	s, ok := d.scalar(n, key, "!!str", "a text")
	if !ok {
		return
	}
	t, err := token.Parse(s)
	if err != nil { // its errors never quote the token
		d.fail(n, key, err.Error(), "")
		return
	}
	into.Set(reflect.ValueOf(t))
}

func readText(d *decoder, n *yaml.Node, key string, into reflect.Value) {
	if s, ok := d.scalar(n, key, "!!str", "a text"); ok {
		into.SetString(s)
	}
}

func readBool(d *decoder, n *yaml.Node, key string, into reflect.Value) {
	if _, ok := d.scalar(n, key, "!!bool", "true or false"); ok {
		var b bool
		if err := n.Decode(&b); err != nil {
			d.fail(n, key, "want true or false", "")
			return
		}
		into.SetBool(b)
	}
}

func readInt(d *decoder, n *yaml.Node, key string, into reflect.Value) {
	if _, ok := d.scalar(n, key, "!!int", "a whole number"); ok {
		var i int
		if err := n.Decode(&i); err != nil {
			d.fail(n, key, "want a whole number, got one that is too large", "")
			return
		}
		into.SetInt(int64(i))
	}
}

func readPrefix(d *decoder, n *yaml.Node, key string, into reflect.Value) {
	s, ok := d.scalar(n, key, "!!str", "a text")
	if !ok {
		return
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		d.fail(n, key, fmt.Sprintf("%q is not a range such as 10.99.0.0/16", shorten(s)), "")
		return
	}
	into.Set(reflect.ValueOf(p))
}

func readPublicKey(d *decoder, n *yaml.Node, key string, into reflect.Value) {
	s, ok := d.scalar(n, key, "!!str", "a text")
	if !ok {
		return
	}
	k, err := ParsePublicKey(s)
	if err != nil { // its errors never quote the text, which may be a private key
		d.fail(n, key, err.Error(), "")
		return
	}
	into.Set(reflect.ValueOf(k))
}

func readDuration(d *decoder, n *yaml.Node, key string, into reflect.Value) {
	s, ok := d.scalar(n, key, "!!str", "a text")
	if !ok {
		return
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		d.fail(n, key, fmt.Sprintf("%q is not a duration such as 90s, 10m or 1h30m", shorten(s)), "")
		return
	}
	into.SetInt(int64(v))
}

func readList[T string | netip.AddrPort](d *decoder, n *yaml.Node, key string, into reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		suggest := ""
		if n.Kind == yaml.ScalarNode && !ownedText(key) {
			suggest = fmt.Sprintf("[%q]", shorten(n.Value))
		}
		d.fail(n, key, "want a list, got "+describe(n), suggest)
		return
	}
	out := make([]T, 0, len(n.Content))
	for i, item := range n.Content {
		item, at := resolve(item), fmt.Sprintf("%s[%d]", key, i)
		s, ok := d.scalar(item, at, "!!str", "a text")
		if !ok {
			continue
		}
		if reason, suggest := itemChecks[key](s); reason != "" {
			d.fail(item, at, reason, suggest)
			continue
		}
		out = append(out, toItem[T](s))
	}
	into.Set(reflect.ValueOf(out))
}

// toItem converts a text that its item check has passed.
func toItem[T string | netip.AddrPort](s string) T {
	var out T
	switch p := any(&out).(type) {
	case *string:
		*p = s
	case *netip.AddrPort:
		*p = netip.MustParseAddrPort(s)
	}
	return out
}

func readEnv(d *decoder, n *yaml.Node, key string, into reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, key, "want a mapping, got "+describe(n), "")
		return
	}
	out := map[string]Secret{}
	for _, k := range into.MapKeys() {
		out[k.String()] = into.MapIndex(k).Interface().(Secret)
	}
	d.pairs(n, key, func(name string, k, v *yaml.Node) {
		v = resolve(v)
		at := key + "." + shorten(name)
		if reason := checkEnvName(name); reason != "" {
			d.fail(k, at, reason, "")
			return
		}
		// describe tells the type only: the value may be a secret
		if s, ok := d.scalar(v, at, "!!str", "a text"); ok {
			if strings.ContainsRune(s, 0) {
				d.fail(v, at, "holds a zero byte", "")
				return
			}
			out[name] = Secret(s)
			d.origins[at] = Origin{d.file, v.Line}
		}
	})
	into.Set(reflect.ValueOf(out))
}

// ownedText reports whether a value under key may hold something secret, so
// that messages must not quote it.
func ownedText(key string) bool { return strings.HasPrefix(key, root+".k3s.") }

// fieldsOf returns the index of each field by its key.
func fieldsOf(t reflect.Type) map[string]int {
	out := make(map[string]int, t.NumField())
	for i := range t.NumField() {
		out[t.Field(i).Tag.Get("yaml")] = i
	}
	return out
}

// keysOf returns all dotted keys below t, in the order of the fields.
func keysOf(prefix string, t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		at := prefix + "." + f.Tag.Get("yaml")
		out = append(out, at)
		if f.Type.Kind() == reflect.Struct && leaves[f.Type].read == nil {
			out = append(out, keysOf(at, f.Type)...)
		}
	}
	return out
}

// suggestKey finds what an unknown key may have meant: a key of the same
// mapping with another spelling, or the same word in another mapping.
func suggestKey(parent, name string, t reflect.Type) string {
	var here []string
	for i := range t.NumField() {
		here = append(here, t.Field(i).Tag.Get("yaml"))
	}
	if s := nearest(name, here); s != "" {
		return s
	}
	all := keysOf(root, reflect.TypeFor[Config]())
	if i := slices.IndexFunc(all, func(k string) bool {
		return strings.HasSuffix(k, "."+fold(name)) && k != parent+"."+name
	}); i >= 0 {
		return all[i]
	}
	return ""
}

// resolve follows an alias to what it stands for. An alias of an alias does not exist in YAML.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// describe names the kind of a node without its content.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "nothing"
	case "!!str":
		return "a text"
	default:
		return "a " + strings.TrimLeft(shorten(n.Tag), "!")
	}
}
