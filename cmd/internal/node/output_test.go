package node

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/overlay/token"
)

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
		p    cli.Program
		args []string
	}{
		{"as a key", agentProgram, []string{"config", "--check", file("  " + secret + ": x\n")}},
		{"as the network_id", agentProgram, []string{"config", "--check", file("  network_id: " + secret + "\n")}},
		{"as a peer", agentProgram, []string{"config", "--check", file("  overlay: {peers: [" + secret + "]}\n")}},
		{"as an argument", cli.Kairos, []string{"bridge", secret}},
		{"as a command", cli.Kairos, []string{secret}},
		{"as a file", cli.Kairos, []string{"bridge", "--network-token-file", secret}},
		{"as a flag's value", cli.Kairos, []string{"bridge", "--mtu", secret}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			env := &cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out}
			if code := cli.Run(t.Context(), tc.p(env), env, tc.args); code == cli.ExitOK {
				t.Errorf("exit code %d", code)
			}
			if strings.Contains(out.String(), secret[8:32]) || !strings.Contains(out.String(), "[network token]") {
				t.Errorf("said %s", out.String())
			}
		})
	}
}
