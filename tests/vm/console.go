package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

// tailSize is how much of the console a failed wait shows, in bytes.
const tailSize = 3000

// errEnded says that nothing more will come.
var errEnded = errors.New("the console ended")

// Console is a machine's serial port: everything it has written since it was
// first started, across reboots and power cuts, as text without terminal
// control. It is safe for several goroutines; Wait is meant for one at a time,
// since it moves on past what it found.
type Console struct {
	mu     sync.Mutex
	raw    io.Writer // gets every byte as it came
	input  io.Writer // nil while the machine is off
	text   []byte
	seen   int // Wait starts here
	state  escape
	ended  bool
	change chan struct{} // closed and replaced with every change
}

func newConsole(raw io.Writer) *Console {
	return &Console{raw: raw, change: make(chan struct{})}
}

// plug connects the console to the next run of the machine; unplug ends it.
func (c *Console) plug(input io.Writer) { c.update(func() { c.input, c.ended = input, false }) }
func (c *Console) unplug()              { c.update(func() { c.input, c.ended = nil, true }) }

func (c *Console) update(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.change)
	c.change = make(chan struct{})
}

// Write takes what the machine writes.
func (c *Console) Write(p []byte) (int, error) {
	c.update(func() { c.text = c.state.plain(c.text, p) })
	return c.raw.Write(p)
}

// Send types text, with \r for the return key.
func (c *Console) Send(text string) error {
	c.mu.Lock()
	input := c.input
	c.mu.Unlock()
	if input == nil {
		return errors.New("type on the console: the machine is off")
	}
	if _, err := io.WriteString(input, text); err != nil {
		return fmt.Errorf("type on the console: %w", err)
	}
	return nil
}

// Wait returns the first match of any of the expressions in what was written
// since the last match, and which expression it was; of several it is the
// earliest in the text. It moves on to the end of the match. The error of a
// wait in vain shows the end of the console.
func (c *Console) Wait(ctx context.Context, any ...*regexp.Regexp) (string, int, error) {
	for {
		c.mu.Lock()
		found, which, ok := c.match(any)
		ended, change := c.ended, c.change
		c.mu.Unlock()
		if ok {
			return found, which, nil
		}
		if ended {
			return "", 0, c.failure(any, errEnded)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return "", 0, c.failure(any, context.Cause(ctx))
		}
	}
}

// match is called with the lock held.
func (c *Console) match(any []*regexp.Regexp) (string, int, bool) {
	rest := c.text[c.seen:]
	which, at := -1, []int(nil)
	for i, re := range any {
		if m := re.FindIndex(rest); m != nil && (at == nil || m[0] < at[0]) {
			which, at = i, m
		}
	}
	if at == nil {
		return "", 0, false
	}
	c.seen += at[1]
	return string(rest[at[0]:at[1]]), which, true
}

func (c *Console) failure(any []*regexp.Regexp, err error) error {
	return fmt.Errorf("wait for %q on the console: %w; its end:\n%s", any, err, c.Tail())
}

// Skip moves on to the end of what has been written so far.
func (c *Console) Skip() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = len(c.text)
}

// Count is how often the expression matches in all that was ever written.
func (c *Console) Count(re *regexp.Regexp) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(re.FindAllIndex(c.text, -1))
}

// Tail is the end of what was written.
func (c *Console) Tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.text
	if len(text) > tailSize {
		text = text[len(text)-tailSize:]
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			text = text[i+1:]
		}
	}
	return strings.TrimSpace(string(text))
}

// escape removes terminal control from a stream that comes in arbitrary parts.
//
//	text ── ESC ──> started ── [ ──> sequence ── @..~ ──> text
//	                   │
//	                   ├── ] P ^ _ ──> string ── BEL or ESC \ ──> text
//	                   └── anything else ──> text
type escape struct {
	in byte // 0 text, ESC started, '[' sequence, ']' string, '\\' string after ESC
}

const esc = 0x1b

// plain appends to text what of p is text: printable bytes, tabs and line ends.
func (e *escape) plain(text, p []byte) []byte {
	for _, b := range p {
		switch e.in {
		case esc:
			e.in = 0
			switch b {
			case '[':
				e.in = '['
			case ']', 'P', '^', '_':
				e.in = ']'
			}
		case '[':
			if b >= 0x40 && b <= 0x7e {
				e.in = 0
			}
		case ']':
			switch b {
			case 0x07:
				e.in = 0
			case esc:
				e.in = '\\'
			}
		case '\\':
			e.in = 0
		default:
			if b == esc {
				e.in = esc
			} else if b >= ' ' && b != 0x7f || b == '\n' || b == '\t' {
				text = append(text, b)
			}
		}
	}
	return text
}
