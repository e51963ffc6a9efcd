package cli

import (
	"bytes"
	"errors"
	"testing"
)

// TestErrorsCannotSteerTheTerminal: a server's refusal is another machine's text.
func TestErrorsCannotSteerTheTerminal(t *testing.T) {
	var out bytes.Buffer
	env := &Env{Stderr: &out, Program: "kairos"}
	if code := env.Fail(WithHint(errors.New("no\x1b]0;owned\a\nway\u202e"), "wait\x1b[2J \u009b31m")); code != ExitFailure {
		t.Errorf("exit code %d", code)
	}
	if got, want := out.String(), "kairos: no]0;owned way\nkairos: hint: wait[2J 31m\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
