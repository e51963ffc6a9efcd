package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// holder keeps a key as its users do: fmt does not call methods of what is in there.
type holder struct{ key Key }

func TestKeyDoesNotPrint(t *testing.T) {
	key := NewKey([32]byte(bytes.Repeat([]byte{0x41}, 32)))
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("it", "key", key, "pointer", &key, "holder", holder{key})
	}
	asJSON, err := json.Marshal(map[string]any{"K": key, "In": struct{ K Key }{key}})
	if err != nil {
		t.Fatal(err)
	}
	said := []string{log.String(), string(asJSON)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		if got := fmt.Sprintf(verb, key); got != redacted {
			t.Errorf("%s: %s", verb, got)
		}
		said = append(said, fmt.Sprintf(verb, holder{key}), fmt.Sprintf(verb, &holder{key}), fmt.Sprintf(verb, []Key{key}))
	}
	for _, s := range said {
		for _, shown := range []string{"4141", "AAAA", "65, 65", "65 65", "0x41, 0x41"} {
			if strings.Contains(s, shown) {
				t.Errorf("the key shows: %s", s)
			}
		}
	}
}

func TestKeyIsKept(t *testing.T) {
	from := [32]byte{1, 2, 3}
	key := NewKey(from)
	from[0] = 9
	if !bytes.Equal(key.Bytes()[:3], []byte{1, 2, 3}) || len(key.Bytes()) != 32 {
		t.Errorf("%x", key.Bytes())
	}
}
