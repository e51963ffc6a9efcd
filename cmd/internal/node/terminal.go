package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/cmd/internal/cli"
)

// isTerminal reports whether a stream is one that a person sits at.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// errDeclined: a person was asked and did not say yes.
var errDeclined = errors.New("nothing was changed: you did not answer yes")

// confirm asks before something that cannot be undone, or that others would
// notice. yes is the command's --yes. Without a terminal nobody can answer, and
// silence is no consent.
func confirm(ctx context.Context, e *cli.Env, yes bool, question string) error {
	if yes {
		return nil
	}
	if !interactive(e) {
		return cli.WithHint(cli.Usagef("%s needs a confirmation, and standard input is not a terminal", strings.TrimSuffix(question, "?")), "add --yes")
	}
	_, _ = fmt.Fprintf(e.Stderr, "%s: %s [y/N] ", e.Program, agentapi.Printable(question)) // nobody is left to tell
	line, err := readLine(ctx, e.Stdin)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errDeclined
}

// interactive reports whether a person can be asked and shown progress.
func interactive(e *cli.Env) bool {
	if e.Terminal != nil {
		return *e.Terminal
	}
	return isTerminal(e.Stdin) && isTerminal(e.Stderr)
}

// readLine returns the next line of r, or the context's error when it ends
// first: a read of a terminal cannot be interrupted otherwise.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(r).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil // the end of the input is an empty answer
		}
		got <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-got:
		return a.line, a.err
	}
}

// Progress is told at most this often on a terminal; elsewhere a line for each tenth.
const (
	barEvery = 200 * time.Millisecond
	barWidth = 30
)

// progress shows how far a long copy is: a bar that is drawn again on a
// terminal, plain lines in a log. It is not safe for concurrent use.
type progress struct {
	env   *cli.Env
	what  string
	tty   bool
	now   func() time.Time
	drawn time.Time // last, on a terminal
	tenth int64     // last told, elsewhere
	open  bool      // the bar's line has no end yet
}

// newProgress starts one. what completes "12 of 34 MB": "writing the root".
func newProgress(env *cli.Env, what string) *progress {
	return &progress{env: env, what: what, tty: interactive(env), now: time.Now, tenth: -1}
}

// at shows done of total bytes.
func (p *progress) at(done, total int64) {
	if total <= 0 || done > total {
		return
	}
	if !p.tty {
		if tenth := done * 10 / total; tenth > p.tenth {
			p.tenth = tenth
			p.env.Say("%s: %d%% of %s", p.what, tenth*10, megabytes(total))
		}
		return
	}
	now := p.now()
	if done < total && now.Sub(p.drawn) < barEvery {
		return
	}
	p.drawn, p.open = now, true
	full := int(done * barWidth / total)
	_, _ = fmt.Fprintf(p.env.Stderr, "\r%s: %s [%s%s] %3d%% of %s\x1b[K", p.env.Program, p.what,
		strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done*100/total, megabytes(total)) // nobody is left to tell
}

// end leaves the bar's line. It may be called when nothing was shown.
func (p *progress) end() {
	if p.open {
		p.open = false
		_, _ = fmt.Fprintln(p.env.Stderr) // nobody is left to tell
	}
}

func megabytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d kB", (n+1023)>>10)
	}
	return fmt.Sprintf("%d MB", (n+1<<19)>>20)
}
