package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/token"
)

// TestErrorsCannotSteerTheTerminal: a server's refusal is another machine's text.
func TestErrorsCannotSteerTheTerminal(t *testing.T) {
	var out bytes.Buffer
	env := &Env{Stderr: &out, program: "kairos"}
	if code := env.fail(withHint(errors.New("no\x1b]0;owned\a\nway\u202e"), "wait\x1b[2J \u009b31m")); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	if got, want := out.String(), "kairos: no]0;owned way\nkairos: hint: wait[2J 31m\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestMisplacedTokenIsNotRepeated: what a unit prints is in the journal.
func TestMisplacedTokenIsNotRepeated(t *testing.T) {
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	secret := tok.Reveal()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte("#cloud-config\nkairos:\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct {
		name string
		p    Program
		args []string
	}{
		{"as a key", Agent, []string{"config", "--check", file("  " + secret + ": x\n")}},
		{"as the network_id", Agent, []string{"config", "--check", file("  network_id: " + secret + "\n")}},
		{"as a peer", Agent, []string{"config", "--check", file("  overlay: {peers: [" + secret + "]}\n")}},
		{"as an argument", Kairos, []string{"bridge", secret}},
		{"as a command", Kairos, []string{secret}},
		{"as a file", Kairos, []string{"bridge", "--network-token-file", secret}},
		{"as a flag's value", Kairos, []string{"bridge", "--mtu", secret}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			env := &Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out}
			if code := run(context.Background(), tc.p(env), env, tc.args); code == exitOK {
				t.Errorf("exit code %d", code)
			}
			if strings.Contains(out.String(), secret[8:32]) || !strings.Contains(out.String(), "[network token]") {
				t.Errorf("said %s", out.String())
			}
		})
	}
}
