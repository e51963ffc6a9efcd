package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/kairos-io/kairos/overlay/token"
)

// Schema returns the JSON schema (draft 2020-12) of a cloud-config with a
// kairos block, made from the types that the decoder fills.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{
		Anonymous:                  true,
		DoNotReference:             true,
		ExpandedStruct:             true,
		RequiredFromJSONSchemaTags: true,
		FieldNameTag:               "yaml",
		Mapper:                     mapType,
	}
	block := r.Reflect(Config{})
	block.Version = ""
	if err := annotate(block, reflect.ValueOf(Default()), root); err != nil {
		return nil, err
	}
	props := jsonschema.NewProperties()
	props.Set(root, block)
	whole := &jsonschema.Schema{
		Version:     jsonschema.Version,
		Title:       "Kairos cloud-config",
		Description: "A #cloud-config; only its kairos block is described here.",
		Type:        "object",
		Properties:  props,
		Required:    []string{root},
	}
	out, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	return append(out, '\n'), nil
}

// mapType describes the types that are texts in YAML and more in Go.
func mapType(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[token.Token](), reflect.TypeFor[netip.Prefix](), reflect.TypeFor[netip.AddrPort](), reflect.TypeFor[Secret](),
		reflect.TypeFor[PublicKey](), reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[Role]():
		return &jsonschema.Schema{Type: "string", Enum: enum(roles)}
	case reflect.TypeFor[LogLevel]():
		return &jsonschema.Schema{Type: "string", Enum: enum(logLevels)}
	default:
		return nil
	}
}

func enum(values []string) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}

// annotate adds the defaults and the limits that types alone do not carry.
func annotate(s *jsonschema.Schema, defaults reflect.Value, key string) error {
	for i := range defaults.NumField() {
		field := defaults.Field(i)
		name := defaults.Type().Field(i).Tag.Get("yaml")
		at := key + "." + name
		p, ok := s.Properties.Get(name)
		if !ok {
			return fmt.Errorf("schema has no %s", at)
		}
		if field.Kind() == reflect.Struct && leaves[field.Type()].read == nil {
			if err := annotate(p, field, at); err != nil {
				return err
			}
			continue
		}
		if limit, ok := limits[at]; ok {
			limit(p)
		}
		if !field.IsZero() {
			p.Default = field.Interface()
		}
		if d, ok := p.Default.(time.Duration); ok {
			p.Default = durationText(d)
		}
	}
	return nil
}

// limits are the bounds of check.go that a schema can express.
var limits = map[string]func(*jsonschema.Schema){
	root + ".network_token": func(s *jsonschema.Schema) { s.MinLength = ptr(1) },
	root + ".network_id": func(s *jsonschema.Schema) {
		s.Pattern, s.MaxLength = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", ptr(maxLabel)
	},
	root + ".overlay.interface": func(s *jsonschema.Schema) {
		s.Pattern, s.MaxLength = "^[A-Za-z0-9_.-]+$", ptr(maxInterface)
	},
	root + ".overlay.listen": func(s *jsonschema.Schema) { s.MinItems, s.MaxItems = ptr(1), ptr(maxListen) },
	root + ".overlay.peers":  func(s *jsonschema.Schema) { s.MaxItems = ptr(maxPeers) },
	root + ".overlay.dht":    func(s *jsonschema.Schema) { s.Const = false },
	root + ".overlay.relay":  func(s *jsonschema.Schema) { s.Const = false },
	root + ".overlay.mtu": func(s *jsonschema.Schema) {
		s.AnyOf = []*jsonschema.Schema{{Const: 0}, {Minimum: number(minMTU), Maximum: number(maxMTU)}}
	},
	root + ".os.health_timeout": func(s *jsonschema.Schema) { s.Pattern = `^([0-9.]+(ns|us|µs|ms|s|m|h))+$` },
	root + ".cluster.servers":   func(s *jsonschema.Schema) { s.Const = 1 },
}

func ptr(n uint64) *uint64     { return &n }
func number(n int) json.Number { return json.Number(fmt.Sprint(n)) }
