package tests

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/tools/txtar"
)

// The repository keeps its own rules.
func TestRepository(t *testing.T) {
	all, err := load(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d packages: looking at the wrong place?", len(all))
	}
	for _, fault := range slices.Concat(checkImports(all), checkStyle(all), checkPins(all)) {
		t.Error(fault)
	}
}

// Each fixture breaks rules on purpose. Its comment lists what must be found,
// one line each; an empty comment means that nothing may be found.
func TestRulesFindTheirFaults(t *testing.T) {
	fixtures, err := filepath.Glob("testdata/rules/*.txtar")
	if err != nil || len(fixtures) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, name := range fixtures {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all, err := load(treeOf(archive))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(slices.Concat(checkImports(all), checkStyle(all), checkPins(all)), "\n")
			if want := strings.TrimSpace(string(archive.Comment)); got != want {
				t.Errorf("found:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// treeOf is the archive's files. A line "//repeat N" in one stands for N lines.
func treeOf(a *txtar.Archive) fs.FS {
	tree := fstest.MapFS{}
	for _, f := range a.Files {
		text := string(f.Data)
		text = strings.ReplaceAll(text, "\t//repeat 60\n", strings.Repeat("\tx++\n", 60))
		text = strings.ReplaceAll(text, "//repeat 500\n", strings.Repeat("// More.\n", 500))
		tree[f.Name] = &fstest.MapFile{Data: []byte(text)}
	}
	return tree
}
