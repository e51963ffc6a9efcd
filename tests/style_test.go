package tests

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"slices"
	"strings"
)

// Budgets: what one can read in one sitting.
const (
	maxFile       = 500 // lines
	maxFunction   = 60  // lines
	maxParameters = 4
	maxMethods    = 5 // of an interface
)

// secretRooms may not use a predictable random source.
var secretRooms = []string{"overlay/token", "overlay/identity", "overlay/admission", "agent/genesis", "agent/peer", "agent/k3s"}

// clockless rooms get the time, the disk and the network as arguments.
var clockless = []string{"overlay/token", "overlay/wire", "overlay/member", "overlay/route", "overlay/path", "agent/role", "agent/health"}

func checkStyle(all []*pkg) []string {
	var faults []string
	for _, p := range all {
		if !slices.ContainsFunc(p.sources, func(s *source) bool { return s.ast.Doc.Text() != "" && !s.test() }) && hasCode(p) {
			faults = append(faults, p.path+": no package comment")
		}
		for _, s := range p.sources {
			faults = append(faults, checkFile(p, s)...)
		}
	}
	return faults
}

// hasCode is false for a directory of tests only, which nobody imports.
func hasCode(p *pkg) bool {
	return slices.ContainsFunc(p.sources, func(s *source) bool { return !s.test() })
}

func checkFile(p *pkg, s *source) []string {
	var faults []string
	if n := bytes.Count(s.text, []byte("\n")); n > maxFile {
		faults = append(faults, fmt.Sprintf("%s: %d lines, at most %d", s.name, n, maxFile))
	}
	if formatted, err := format.Source(s.text); err != nil || !bytes.Equal(formatted, s.text) {
		faults = append(faults, s.name+": not formatted with gofmt")
	}
	if slices.Contains(secretRooms, p.path) {
		for _, path := range s.imports() {
			if (path == "math/rand" || path == "math/rand/v2") && !s.test() {
				faults = append(faults, fmt.Sprintf("%s imports %s: secrets need crypto/rand", s.name, path))
			}
		}
	}
	if s.test() {
		return faults
	}
	if slices.Contains(clockless, p.path) {
		faults = append(faults, checkClockless(s)...)
	}
	for n := range ast.Preorder(s.ast) {
		faults = append(faults, checkNode(p, s, n)...)
	}
	return faults
}

func checkNode(p *pkg, s *source, n ast.Node) []string {
	var faults []string
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Body != nil {
			if lines := s.set.Position(n.End()).Line - s.set.Position(n.Pos()).Line + 1; lines > maxFunction {
				faults = append(faults, fmt.Sprintf("%s: %s has %d lines, at most %d", s.at(n.Pos()), n.Name.Name, lines, maxFunction))
			}
		}
		if count := n.Type.Params.NumFields(); count > maxParameters {
			faults = append(faults, fmt.Sprintf("%s: %s has %d parameters, at most %d", s.at(n.Pos()), n.Name.Name, count, maxParameters))
		}
		if n.Name.IsExported() && n.Doc.Text() == "" && exportedReceiver(n) && s.ast.Name.Name != "main" {
			faults = append(faults, fmt.Sprintf("%s: %s is exported and has no comment", s.at(n.Pos()), n.Name.Name))
		}
	case *ast.InterfaceType:
		if n.Methods.NumFields() > maxMethods {
			faults = append(faults, fmt.Sprintf("%s: an interface of %d methods, at most %d", s.at(n.Pos()), n.Methods.NumFields(), maxMethods))
		}
	case *ast.SelectorExpr:
		// Tests wait with deadlines too; the rule is for what is shipped.
		if calls(n, "time", "Sleep") && !matches(p.path, "tests/...") {
			faults = append(faults, s.at(n.Pos())+": time.Sleep: wait for an event, a timer or the context")
		}
	}
	return faults
}

func exportedReceiver(n *ast.FuncDecl) bool {
	if n.Recv == nil {
		return true
	}
	t := n.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	name, ok := t.(*ast.Ident)
	return !ok || name.IsExported()
}

func calls(n *ast.SelectorExpr, pkg, name string) bool {
	x, ok := n.X.(*ast.Ident)
	return ok && x.Name == pkg && n.Sel.Name == name
}

// checkClockless finds what a pure room may not touch.
func checkClockless(s *source) []string {
	var faults []string
	for _, path := range s.imports() {
		if path == "os" || path == "net" || path == "net/http" || strings.HasPrefix(path, "os/") {
			faults = append(faults, fmt.Sprintf("%s imports %s: a pure room gets disk and network as arguments", s.name, path))
		}
	}
	for n := range ast.Preorder(s.ast) {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			continue
		}
		for _, f := range []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"} {
			if calls(sel, "time", f) {
				faults = append(faults, fmt.Sprintf("%s: time.%s: a pure room gets the time as an argument", s.at(sel.Pos()), f))
			}
		}
	}
	return faults
}
