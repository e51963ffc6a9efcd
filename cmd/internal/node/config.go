package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/agent/console"
	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/cmd/internal/cli"
)

func newConfig(env *cli.Env) *cobra.Command {
	var check, root, out string
	var apply, schema bool
	cmd := &cobra.Command{
		Use:   "config {--check FILE | --apply | --schema}",
		Short: "Check or merge the configuration of this node (kairos-config.service)",
		Long: `Check or merge the kairos block of the cloud-config.

  --check FILE  says what is wrong with a file, and where
  --apply       merges cloud-init's configuration, /oem/*.yaml, /etc/kairos/*.yaml,
                the credential and the kernel argument kairos.config, later ones
                winning, for the daemons; where that is refused, the last
                good one stays in force
  --schema      prints the JSON schema of the block`,
	}
	flags := cmd.Flags()
	flags.StringVar(&check, "check", "", "file to check")
	flags.BoolVar(&apply, "apply", false, "merge this machine's configuration")
	flags.BoolVar(&schema, "schema", false, "print the JSON schema")
	flags.StringVar(&root, "root", "/", "with --apply: where the machine's file system begins")
	flags.StringVar(&out, "out", defaultConfigDir, "with --apply: where the result goes")
	cmd.MarkFlagsMutuallyExclusive("check", "apply", "schema")
	cmd.MarkFlagsOneRequired("check", "apply", "schema")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case schema:
			return printSchema(env)
		case apply:
			return applyConfig(env, root, out)
		}
		return checkConfig(env, check)
	}
	return cmd
}

func printSchema(env *cli.Env) error {
	b, err := config.Schema()
	if err != nil {
		return fmt.Errorf("make the schema: %w", err)
	}
	env.Result().WriteString(strings.TrimRight(string(b), "\n") + "\n")
	return nil
}

func checkConfig(env *cli.Env, file string) error {
	loaded, err := config.Check(file)
	if err != nil {
		return configError(err)
	}
	tellWarnings(env, loaded.Warnings)
	fmt.Fprintf(env.Result(), "%s: ok\n", file)
	return nil
}

// applyConfig puts nothing in force unless everything is right; what was in force
// stays. What is to be told of files that are not refused stays on the console, and in
// status.
func applyConfig(env *cli.Env, root, out string) error {
	warnings, err := config.Misnamed(root)
	if err != nil { // a disk that cannot be listed keeps nothing from being merged
		env.Say("%v", err)
	}
	st, _, stateErr := store.Read(filepath.Join(root, agentState))
	place := config.Place{Root: root, Dir: out}
	loaded, err := place.Merge(stateErr != nil || st.Phase != store.Idle)
	if err == nil {
		warnings = append(warnings, loaded.Warnings...)
	}
	tellWarnings(env, warnings)
	notes := agentapi.Notes{Root: root}
	if err := errors.Join(notes.Set("kairos-config", agentapi.Note, warnings.Below(root)), console.Refused(notes, err, place.InForce() != nil)); err != nil {
		env.Say("%v", err)
	}
	if err != nil {
		if place.InForce() != nil {
			env.Say("the last good configuration stays in force")
		}
		return configError(err)
	}
	env.Say("merged %s", strings.Join(loaded.Files, ", "))
	return nil
}

func tellWarnings(env *cli.Env, warnings config.Problems) {
	for _, w := range warnings {
		env.Say("warning: %v", w)
	}
}

// configError makes what the files are at fault for wrong input. Each problem
// is one line; a file that cannot be read is a usage error as well.
func configError(err error) error {
	var problems config.Problems
	if errors.As(err, &problems) {
		return cli.UsageError{Err: linesError{err: err, problems: problems}}
	}
	return cli.UsageError{Err: err}
}

// linesError is one of the few errors with several lines: one for each problem of a file.
type linesError struct {
	err      error
	problems config.Problems
}

func (e linesError) Error() string { return e.err.Error() }
func (e linesError) Unwrap() error { return e.err }

func (e linesError) Lines() []string {
	out := make([]string, 0, len(e.problems))
	for _, p := range e.problems {
		out = append(out, p.Error())
	}
	return out
}
