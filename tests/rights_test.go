package tests

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// words are the fields in which a member describes itself and which would be a
// right if somebody acted on them.
var words = []string{"Kind", "NetworkID", "Annotations"}

// spokenOf are the types that hold another member's words.
var spokenOf = []string{"overlay/wire.Record", "overlay/api.Node", "overlay/api.Record"}

// mayRead says who reads words besides overlay/rights, and why that gives nobody
// a right. An entry is a package (path/...), a file, or a function of one.
var mayRead = []string{
	"overlay/rights/...",
	"overlay/wire/...",           // encodes them
	"overlay/member/...",         // compares records
	"overlay/gossip/...",         // compares records
	"overlay/overlaytest/...",    // makes records
	"overlay/api/types.go",       // hands them to overlay/rights
	"overlay/view.go",            // shows them
	"overlay/metrics.go",         // counts them
	"agent/console/look.go",      // shows them
	"agent/world.go:published",   // this machine's own
	"cmd/internal/cli/status.go", // shows them
}

// A member's own words become a right in overlay/rights and nowhere else.
func TestWordsAreReadInOnePlace(t *testing.T) {
	set := token.NewFileSet()
	all, err := packages.Load(&packages.Config{
		Dir: "..", Fset: set,
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo,
	}, "./overlay/...", "./agent/...", "./cmd/...")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, p := range all {
		for _, e := range p.Errors {
			t.Fatalf("%s: %v", p.PkgPath, e)
		}
		reads := readsOfWords(set, p.Syntax, p.TypesInfo)
		seen += len(reads)
		for _, r := range reads {
			r.file = path.Join(strings.TrimPrefix(p.PkgPath, module+"/"), path.Base(r.file))
			if !slices.ContainsFunc(mayRead, r.within) {
				t.Errorf("%s:%d reads %s of a member: ask overlay/rights", r.file, r.line, r.field)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d reads were found at all: looking at the wrong fields?", seen)
	}
}

// read is one place that reads a word.
type read struct {
	file, function, field string
	line                  int
}

func (r read) within(allowed string) bool {
	if file, function, ok := strings.Cut(allowed, ":"); ok {
		return r.file == file && r.function == function
	}
	return r.file == allowed || matches(path.Dir(r.file), allowed)
}

// readsOfWords finds them, through embedding too. What is only written is none.
func readsOfWords(set *token.FileSet, files []*ast.File, info *types.Info) []read {
	var out []read
	for _, f := range files {
		function := ""
		written := map[ast.Expr]bool{}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				function = n.Name.Name
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					written[left] = true
				}
			case *ast.SelectorExpr:
				sel := info.Selections[n]
				if sel == nil || sel.Kind() != types.FieldVal || written[n] || !slices.Contains(words, n.Sel.Name) {
					return true
				}
				if slices.Contains(spokenOf, ownerOf(sel)) {
					at := set.Position(n.Sel.Pos())
					out = append(out, read{file: at.Filename, function: function, field: n.Sel.Name, line: at.Line})
				}
			}
			return true
		})
	}
	return out
}

// ownerOf is the named struct that has the selected field, without the module.
func ownerOf(sel *types.Selection) string {
	t := sel.Recv()
	for step, i := range sel.Index() {
		if p, ok := t.Underlying().(*types.Pointer); ok {
			t = p.Elem()
		}
		if step == len(sel.Index())-1 {
			break
		}
		t = t.Underlying().(*types.Struct).Field(i).Type()
	}
	return strings.TrimPrefix(types.TypeString(types.Unalias(t), nil), module+"/")
}

// The rule finds what it is for: directly, through a pointer and by embedding.
func TestRuleOfWordsFindsItsFaults(t *testing.T) {
	const source = `package wire
type Record struct { Kind, NetworkID, Name string; Annotations map[string]string }
type member struct { *Record; Kind int }
type Other struct { Kind string }
func f(r Record, p *Record, m member, o Other) {
	_ = r.Kind
	_ = p.NetworkID
	_ = m.Annotations["role"]
	_ = m.Kind
	_ = o.Kind
	_ = r.Name
	r.Kind = "node"
}`
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, "x.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
	if _, err := (&types.Config{}).Check(module+"/overlay/wire", set, []*ast.File{f}, info); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range readsOfWords(set, []*ast.File{f}, info) {
		got = append(got, fmt.Sprintf("%d %s in %s", r.line, r.field, r.function))
	}
	if want := "6 Kind in f, 7 NetworkID in f, 8 Annotations in f"; strings.Join(got, ", ") != want {
		t.Errorf("found %s, want %s", strings.Join(got, ", "), want)
	}
}
