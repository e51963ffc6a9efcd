package tests

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/kairos-io/kairos"

// source is one Go file.
type source struct {
	name string // path in the repository
	text []byte
	ast  *ast.File
	set  *token.FileSet
}

func (s *source) test() bool { return strings.HasSuffix(s.name, "_test.go") }
func (s *source) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", s.name, s.set.Position(p).Line)
}

// imports are the imported paths; those of this module as paths in the
// repository that begin with "./".
func (s *source) imports() []string {
	var all []string
	for _, i := range s.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			p = i.Path.Value
		}
		if rest, ok := strings.CutPrefix(p, module); ok && (rest == "" || rest[0] == '/') {
			p = "." + rest
		}
		all = append(all, p)
	}
	return all
}

// pkg is one directory of Go files.
type pkg struct {
	path    string // in the repository: overlay/mesh
	sources []*source
}

// load reads every Go file below root, whatever its build constraints, apart
// from other modules and what the go command passes over.
func load(root fs.FS) ([]*pkg, error) {
	byPath := map[string]*pkg{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(root, name)
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if byPath[dir] == nil {
			byPath[dir] = &pkg{path: dir}
		}
		byPath[dir].sources = append(byPath[dir].sources, &source{name: name, text: text, ast: file, set: set})
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []*pkg
	for _, p := range byPath {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pkg) int { return strings.Compare(a.path, b.path) })
	return all, nil
}

func skipDir(root fs.FS, name string) error {
	base := path.Base(name)
	if name != "." && (base == "testdata" || base[0] == '.' || base[0] == '_' || name == "build") {
		return fs.SkipDir
	}
	if _, err := fs.Stat(root, path.Join(name, "go.mod")); name != "." && !errors.Is(err, fs.ErrNotExist) {
		return fs.SkipDir
	}
	return nil
}
