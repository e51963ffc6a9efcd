package vm

import (
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Each part of written arrives in a write of its own.
func TestConsoleIsPlainText(t *testing.T) {
	for _, c := range []struct {
		name    string
		written []string
		want    string
	}{
		{"plain", []string{"one\r\ntwo\n"}, "one\ntwo\n"},
		{"colours", []string{"\x1b[1m\x1b[33mShell> \x1b[0m"}, "Shell> "},
		{"cut inside a sequence", []string{"a\x1b", "[0", "4;01Hb"}, "ab"},
		{"a window title", []string{"\x1b]0;kairos\x07login:"}, "login:"},
		{"a string ended by ESC backslash", []string{"\x1bP+q6b\x1b", "\\ok"}, "ok"},
		{"other escapes", []string{"\x1bc\x1b=ok"}, "ok"},
		{"control characters", []string{"a\x00\x07\x08b\tc"}, "ab\tc"},
		{"letters beyond ASCII", []string{"grün"}, "grün"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e escape
			var got []byte
			for _, w := range c.written {
				got = e.plain(got, []byte(w))
			}
			if string(got) != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestConsoleWaitsForWhatIsYetToCome(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := newConsole(io.Discard)
	go func() {
		for _, part := range []string{"boot ", "ing\nlog", "in: "} {
			if _, err := c.Write([]byte(part)); err != nil {
				t.Error(err)
			}
		}
	}()
	got, which, err := c.Wait(ctx, regexp.MustCompile("panic"), regexp.MustCompile("log[a-z]+:"))
	if err != nil || got != "login:" || which != 1 {
		t.Errorf("got %q of %d, %v", got, which, err)
	}
}

// What was found once is not found again; the earliest of several is found first.
func TestConsoleMovesOn(t *testing.T) {
	c := newConsole(io.Discard)
	if _, err := io.WriteString(c, "start b a start"); err != nil {
		t.Fatal(err)
	}
	a, b, start := regexp.MustCompile("a "), regexp.MustCompile("b"), regexp.MustCompile("start")
	for _, want := range []string{"start", "b", "start"} {
		got, _, err := c.Wait(t.Context(), b, start)
		if err != nil || got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Wait(ctx, a); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "start b a start") {
		t.Errorf("what lies behind was found, or the console's end is not told: %v", err)
	}
	if n := c.Count(start); n != 2 {
		t.Errorf("counted %d", n)
	}
}

func TestConsoleEndsWithItsMachine(t *testing.T) {
	c := newConsole(io.Discard)
	c.unplug()
	if _, _, err := c.Wait(t.Context(), regexp.MustCompile("x")); !errors.Is(err, errEnded) {
		t.Errorf("got %v", err)
	}
	if err := c.Send("x"); err == nil {
		t.Error("typed on a console that is off")
	}
}
