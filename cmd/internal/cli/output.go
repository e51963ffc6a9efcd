package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/overlay/token"
)

// The rules of output, for both programs:
//
//   - Standard output carries the result and nothing else: a token, a
//     kubeconfig, a table. It is written once, at the end, and stays empty when
//     the command fails, so that `kairos get-kubeconfig > kubeconfig` never
//     leaves half a file.
//   - Everything said to a person goes to standard error, each line with the
//     program's name before it.
//   - An error is one line, lower case, without a period; a configuration file
//     with several faults has one line for each. If there is something to do
//     about it, another line says so: "kairos: hint: ...".
//   - Exit codes: 0 done, 1 it failed, 2 the input was wrong (flags, arguments,
//     a token, a configuration file); with 2 nothing was started or changed. A
//     question may answer with a code of its own, which its help names.
//   - No secret is ever printed, except by the verb whose result it is.

// Exit codes.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
)

// Env is what a command may touch of the process. Tests bring their own.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Program        string       // who speaks; Run sets it
	out            bytes.Buffer // the result, until the command succeeded
	started        bool         // a command's own code ran: what failed before was the input
	code           int          // what a command that succeeded exits with, if not 0
	Terminal       *bool        // whether a person is there; nil: look at the streams
}

// Say prints one line for a person.
func (e *Env) Say(format string, args ...any) {
	// Nobody is left to tell that standard error is gone.
	_, _ = fmt.Fprintf(e.Stderr, e.Program+": "+format+"\n", args...)
}

// Result is where a command writes what it was asked for; it never fails.
func (e *Env) Result() *bytes.Buffer { return &e.out }

// Exit makes a command that succeeds exit with a code of its own.
func (e *Env) Exit(code int) { e.code = code }

// UsageError is wrong input: exit code 2.
type UsageError struct{ Err error }

// Error implements error.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e UsageError) Unwrap() error { return e.Err }

// Usagef makes an error with exit code 2.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// hintError carries what to do next.
type hintError struct {
	err  error
	hint string
}

func (e hintError) Error() string { return e.err.Error() }
func (e hintError) Unwrap() error { return e.err }

// WithHint adds what a person can do about err.
func WithHint(err error, format string, args ...any) error {
	return hintError{err, fmt.Sprintf(format, args...)}
}

// Program is one of the two binaries.
type Program func(*Env) *cobra.Command

// Main runs p with the process's arguments, streams and signals and returns
// the exit code. The first interrupt, termination or hang-up ends the command's
// context, so that it can take down what it made; the second ends the process.
func Main(p Program) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	// Who reads our output may be gone first: Ctrl-C ends a whole pipeline. Then a
	// write fails, and does not end the process before it has cleaned up.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	env := &Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	return Run(ctx, p(env), env, os.Args[1:])
}

// Run runs one command and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, env *Env, args []string) int {
	env.Program = root.Name()
	prepare(env, root)
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(&env.out) // --help is a result
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		if _, err = env.Stdout.Write(env.out.Bytes()); err == nil {
			return env.code
		}
		if errors.Is(err, syscall.EPIPE) {
			return ExitFailure // nobody wants to know: `kairos status | head -1`
		}
		err = fmt.Errorf("write the result: %w", err)
	}
	if !env.started {
		err = WithHint(UsageError{err}, "%s", cmp.Or(HintOf(err), "see `"+cmd.CommandPath()+" --help`"))
	}
	return env.Fail(err)
}

// prepare makes every command quiet about errors, which run reports, refuses
// arguments where none are meant, and notes when a command's own code begins.
func prepare(env *Env, cmd *cobra.Command) {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.CompletionOptions.HiddenDefaultCmd = true
	if !cmd.HasSubCommands() {
		if cmd.Args == nil {
			cmd.Args = noArguments
		}
		verb := cmd.RunE
		cmd.RunE = func(c *cobra.Command, args []string) error {
			env.started = true
			return verb(c, args)
		}
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("which command?")
		}
		return unknownCommand(c, args[0])
	}
	for _, sub := range cmd.Commands() {
		prepare(env, sub)
	}
}

// noArguments is for most of our verbs: input comes by flags.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return WithHint(fmt.Errorf("unexpected argument %q", args[0]), "see `%s --help`", c.CommandPath())
}

func unknownCommand(c *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q", name)
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(name); len(near) > 0 {
		return WithHint(err, "did you mean `%s %s`?", c.CommandPath(), near[0])
	}
	return WithHint(err, "see `%s --help`", c.CommandPath())
}

// Fail prints err and its hint and returns the exit code.
func (e *Env) Fail(err error) int {
	var many interface{ Lines() []string }
	if errors.As(err, &many) {
		for _, line := range many.Lines() {
			e.Say("%s", OneLine(line))
		}
	} else {
		e.Say("%s", OneLine(err.Error()))
	}
	if h := HintOf(err); h != "" {
		e.Say("hint: %s", OneLine(h))
	}
	var usage UsageError
	if errors.As(err, &usage) {
		return ExitUsage
	}
	return ExitFailure
}

// HintOf returns what a person can do about err, or "".
func HintOf(err error) string {
	var h hintError
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// OneLine keeps the promise of one line per error, whatever an error contains:
// part of it may come from another machine, or be a token in a wrong place.
func OneLine(s string) string {
	return token.Hide(agentapi.Printable(strings.Join(strings.Fields(s), " ")))
}
