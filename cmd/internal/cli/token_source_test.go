package cli

import (
	"bytes"
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/overlay/token"
)

// TestTokenLeavesTheEnvironment: whatever the source, no child inherits the token.
func TestTokenLeavesTheEnvironment(t *testing.T) {
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"from the environment": nil,
		"from standard input":  {"--network-token-file", "-"},
		"from a flag":          {"--network-token", tok.Reveal()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(tokenEnv, tok.Reveal())
			var stderr bytes.Buffer
			env := &Env{Stdin: strings.NewReader(tok.Reveal() + "\n"), Stderr: &stderr, Program: "kairos"}
			var s tokenSource
			cmd := &cobra.Command{}
			s.addFlags(cmd)
			if err := cmd.ParseFlags(args); err != nil {
				t.Fatal(err)
			}
			got, err := s.read(env, cmd)
			if err != nil || got.Reveal() != tok.Reveal() {
				t.Fatalf("got another token, %v", err)
			}
			if _, ok := os.LookupEnv(tokenEnv); ok {
				t.Error("the variable is still there")
			}
			if strings.Contains(stderr.String(), tok.Reveal()) {
				t.Error("the token was printed")
			}
			if warned := strings.Contains(stderr.String(), "visible to other users"); warned != (name == "from a flag") {
				t.Errorf("said: %s", stderr.String())
			}
		})
	}
}
