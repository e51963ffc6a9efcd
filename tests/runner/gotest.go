package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// event is one line of `go test -json`, see `go doc test2json`.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds

	ImportPath string // of build-output and build-fail
}

// report counts events and shows what a person wants to see of them.
type report struct {
	result
	s      *session
	output map[string][]string // of tests and packages that are not finished
	ran    map[string]int      // tests per package
}

// goTest runs `go test -json` with further arguments; lint has vetted all. Failing tests are shown
// with all they wrote, other packages with one line and what they measured.
func goTest(ctx context.Context, s *session, args ...string) result {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-vet=off"}, args...)...)
	cmd.Stderr = s.log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.say("FAIL %v\n", err)
		return result{failed: 1}
	}
	if err := cmd.Start(); err != nil {
		s.say("FAIL %v\n", err)
		return result{failed: 1}
	}
	r := &report{s: s, output: map[string][]string{}, ran: map[string]int{}}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		r.line(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		s.say("FAIL reading the results: %v\n", err)
		r.failed++
	}
	// A failure that no test accounts for must not get lost.
	if err := cmd.Wait(); err != nil && r.failed == 0 {
		s.say("FAIL go test: %v\n", err)
		r.failed++
	}
	return r.result
}

func (r *report) line(text []byte) {
	var e event
	if err := json.Unmarshal(text, &e); err != nil || e.Action == "" {
		fmt.Fprintf(r.s.log, "%s\n", text)
		return
	}
	key := e.Package + e.ImportPath + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		io.WriteString(r.s.log, e.Output)
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		r.finish(e, key)
	case "build-fail":
		r.failed++
		r.show(key, "does not build: "+e.ImportPath)
	}
}

func (r *report) finish(e event, key string) {
	defer delete(r.output, key)
	if e.Test == "" {
		r.finishPackage(e, key)
		return
	}
	r.ran[e.Package]++
	switch e.Action {
	case "pass":
		r.passed++
		r.showFigures(e, key)
	case "skip":
		r.failed++
		r.show(key, "FAIL, because it was skipped: "+e.Package+" "+e.Test)
	case "fail":
		r.failed++
		r.show(key, fmt.Sprintf("FAIL %s %s (%.1fs)", e.Package, e.Test, e.Elapsed))
	}
}

func (r *report) finishPackage(e event, key string) {
	switch {
	case e.Action == "fail" && r.ran[e.Package] == 0:
		r.failed++
		r.show(key, "FAIL "+e.Package)
	case e.Action == "fail":
		// A panic or a timeout shows in the package's own output only.
		r.show(key, fmt.Sprintf("FAIL %s (%.1fs)", e.Package, e.Elapsed))
	case r.ran[e.Package] > 0:
		r.s.say("ok   %s (%d tests, %.1fs)\n", strings.TrimPrefix(e.Package, "github.com/kairos-io/kairos/"), r.ran[e.Package], e.Elapsed)
	}
}

// showFigures shows what a test has measured: lines that begin with RESULT.
func (r *report) showFigures(e event, key string) {
	for _, l := range r.output[key] {
		if _, figure, ok := strings.Cut(l, "RESULT "); ok {
			r.s.say("     %s: %s", e.Test, figure)
		}
	}
}

func (r *report) show(key, title string) {
	var b strings.Builder
	b.WriteString(title + "\n")
	for _, l := range r.output[key] {
		b.WriteString("    " + l)
	}
	r.s.say("%s", b.String())
}
