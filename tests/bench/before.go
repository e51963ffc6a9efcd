package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// buildBefore builds ours as it was at a revision, as a contender of its own: figures
// of two runs on a shared machine cannot be compared.
func (b *bench) buildBefore(ctx context.Context) error {
	if !slices.Contains(b.only, nameBefore) {
		return nil
	}
	tree, err := os.MkdirTemp("", "bench-before-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	archive := filepath.Join(tree, "tree.tar")
	for _, c := range []run.Cmd{
		{Dir: b.root, Args: []string{"git", "archive", "--format=tar", "-o", archive, b.before}},
		{Dir: tree, Args: []string{"tar", "-xf", archive}},
		{Dir: tree, Env: []string{"CGO_ENABLED=0"}, Args: []string{"nice", "go", "build", "-trimpath", "-o", b.program("before") + "/", "./cmd/kairos", "./cmd/kairos-agent"}},
	} {
		if _, err := run.Do(ctx, c); err != nil {
			return fmt.Errorf("build ours at %s: %w", b.before, err)
		}
	}
	if !slices.Contains(b.figures, figureMembers) {
		return nil
	}
	const program = "overlay/overlaytest/members_test.go"
	if err := copyFile(filepath.Join(b.root, program), filepath.Join(tree, program)); err != nil {
		return err
	}
	return buildMembers(ctx, tree, filepath.Join(b.program("before"), "members.test"))
}

func startBefore(ctx context.Context, b *bench, w *world) (*network, error) {
	return startOurs(ctx, w, ours{programs: b.program("before"), path: pathDirect})
}
