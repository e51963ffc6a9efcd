package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/cmd/internal/cli"
)

// person is an Env whose streams are, or are not, a terminal.
func person(input string, terminal bool) (*cli.Env, *bytes.Buffer) {
	var out bytes.Buffer
	return &cli.Env{Stdin: strings.NewReader(input), Stderr: &out, Program: "kairos", Terminal: &terminal}, &out
}

func TestConfirm(t *testing.T) {
	for _, tc := range []struct {
		name, input   string
		yes, terminal bool
		want          string // "" for consent
	}{
		{"--yes asks nobody", "", true, false, ""},
		{"y", "y\n", false, true, ""},
		{"Yes", " Yes \n", false, true, ""},
		{"no", "n\n", false, true, errDeclined.Error()},
		{"enter", "\n", false, true, errDeclined.Error()},
		{"end of input", "", false, true, errDeclined.Error()},
		{"something else", "yes please\n", false, true, errDeclined.Error()},
		{"nobody is there", "y\n", false, false, "reboot now needs a confirmation, and standard input is not a terminal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env, out := person(tc.input, tc.terminal)
			err := confirm(t.Context(), env, tc.yes, "reboot now?")
			if got := errorText(err); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			asked := strings.Contains(out.String(), "kairos: reboot now? [y/N] ")
			if asked != (tc.terminal && !tc.yes) {
				t.Errorf("said %q", out.String())
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Somebody who presses Ctrl-C at the question is not asked twice.
func TestConfirmEndsWithItsContext(t *testing.T) {
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	env, _ := person("", true)
	env.Stdin = r
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := confirm(ctx, env, false, "reboot now?"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestProgressInALog(t *testing.T) {
	env, out := person("", false)
	p := newProgress(env, "writing the root")
	for done := int64(0); done <= 64<<20; done += 1 << 20 {
		p.at(done, 64<<20)
	}
	p.end()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 11 || lines[0] != "kairos: writing the root: 0% of 64 MB" || lines[10] != "kairos: writing the root: 100% of 64 MB" {
		t.Errorf("said %q", lines)
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Error("a log got characters for terminals")
	}
}

func TestProgressOnATerminal(t *testing.T) {
	env, out := person("", true)
	p := newProgress(env, "writing the root")
	now := time.Unix(0, 0)
	p.now = func() time.Time { return now }
	for _, done := range []int64{0, 1, 50, 100} { // the second comes too soon to be drawn
		if done != 1 {
			now = now.Add(barEvery)
		}
		p.at(done<<20, 100<<20)
	}
	p.end()
	p.end()
	want := "\rkairos: writing the root [..............................]   0% of 100 MB\x1b[K" +
		"\rkairos: writing the root [###############...............]  50% of 100 MB\x1b[K" +
		"\rkairos: writing the root [##############################] 100% of 100 MB\x1b[K\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

// A pipe and a file are no terminals.
func TestIsTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	if isTerminal(r) || isTerminal(strings.NewReader("")) || isTerminal(nil) {
		t.Error("taken for a terminal")
	}
}
