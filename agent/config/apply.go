package config

import (
	"bytes"
	"encoding"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/kairos-io/kairos/overlay/token"
)

// Names of the files that Apply writes.
const (
	KairosFile  = "kairos.yaml"  // the whole block, for the agent
	OverlayFile = "overlay.yaml" // without k3s, cluster and os, for the overlay
)

// Apply writes the merged configuration into dir (mode 0700): KairosFile and
// OverlayFile, each with mode 0600, and replaced atomically where it is another one. LoadFile
// reads them.
func Apply(c Config, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make configuration directory: %w", err)
	}
	for _, f := range []struct {
		name string
		omit []string
	}{
		{OverlayFile, []string{"cluster", "k3s", "os"}},
		{KairosFile, nil},
	} {
		raw, err := render(c, f.omit...)
		if err != nil {
			return fmt.Errorf("encode %s: %w", f.name, err)
		}
		if err := put(filepath.Join(dir, f.name), raw); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return nil
}

// Render returns the block as a cloud-config, with the token: the text belongs
// on the user's terminal or in a 0600 file.
func Render(c Config) ([]byte, error) { return render(c) }

func render(c Config, omit ...string) ([]byte, error) {
	block, err := encodeStruct(reflect.ValueOf(c), omit)
	if err != nil {
		return nil, err
	}
	doc := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text(root), block}}
	return encode(doc, written)
}

func encodeStruct(v reflect.Value, omit []string) (*yaml.Node, error) {
	out := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Tag.Get("yaml"), v.Field(i)
		if slices.Contains(omit, name) || field.IsZero() && field.Kind() != reflect.Bool {
			continue // zero is the default of everything but booleans that can be zero
		}
		n, err := encodeValue(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.Content = append(out.Content, text(name), n)
	}
	return out, nil
}

// encodeValue is the reverse of leaves.
func encodeValue(v reflect.Value) (*yaml.Node, error) {
	switch x := v.Interface().(type) {
	case token.Token:
		return text(x.Reveal()), nil
	case Secret:
		return text(x.Reveal()), nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(x)}, nil
	case int:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(x)}, nil
	case time.Duration:
		return text(durationText(x)), nil
	case encoding.TextMarshaler:
		b, err := x.MarshalText()
		return text(string(b)), err
	}
	switch v.Kind() {
	case reflect.String:
		return text(v.String()), nil
	case reflect.Struct:
		return encodeStruct(v, nil)
	case reflect.Slice:
		out := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n, err := encodeValue(v.Index(i))
			if err != nil {
				return nil, err
			}
			out.Content = append(out.Content, n)
		}
		return out, nil
	case reflect.Map:
		return encodeMap(v)
	default:
		return nil, fmt.Errorf("cannot write a %s", v.Type())
	}
}

func encodeMap(v reflect.Value) (*yaml.Node, error) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
	out := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range keys {
		n, err := encodeValue(v.MapIndex(k))
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, text(k.String()), n)
	}
	return out, nil
}
