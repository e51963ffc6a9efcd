package intake

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// inline begins an argument that holds the cloud-config itself.
const inline = "base64:"

// Arg is the kernel argument, parsed. Both fields are nil where there is none.
type Arg struct {
	Text []byte
	URL  *url.URL // http or https
}

// Argument reads kairos.config= from the kernel's command line, and in a
// container from that of process 1, as systemd does. The last one counts.
// Its errors do not quote the value, which may be a secret.
func (m Machine) Argument() (Arg, error) {
	name := "proc/cmdline"
	container := m.exists("run/systemd/container")
	if container {
		name = "proc/1/cmdline"
	}
	raw, err := os.ReadFile(m.path(name))
	if err != nil {
		return Arg{}, fmt.Errorf("read the kernel's command line: %w", err)
	}
	words := splitWords(string(raw))
	if container {
		words = strings.Split(string(raw), "\x00")
	}
	return parseArgument(words)
}

func parseArgument(words []string) (Arg, error) {
	value := ""
	for _, w := range words {
		if v, ok := strings.CutPrefix(w, Argument+"="); ok {
			value = v
		}
	}
	if value == "" {
		return Arg{}, nil
	}
	if text, ok := strings.CutPrefix(value, inline); ok {
		// The alphabet and the padding are what people's tools differ in.
		text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
		raw, err := base64.RawStdEncoding.DecodeString(text)
		if err != nil {
			return Arg{}, fmt.Errorf("the kernel argument %s: what follows %s is not base64; make it with `base64 -w0 config.yaml`", Argument, inline)
		}
		return Arg{Text: raw}, nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return Arg{}, fmt.Errorf("the kernel argument %s: want http://..., https://... or %sTEXT", Argument, inline)
	}
	return Arg{URL: u}, nil
}

// splitWords splits a command line as the kernel does: at white space outside
// of double quotes, which are dropped.
func splitWords(s string) []string {
	var words []string
	var word strings.Builder
	quoted, any := false, false
	for _, r := range s {
		switch {
		case r == '"':
			quoted, any = !quoted, true
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			if any {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(r)
			any = true
		}
	}
	if any {
		words = append(words, word.String())
	}
	return words
}

// shown is a URL without what may be secret in it.
func shown(u *url.URL) string {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return plain.String()
}
