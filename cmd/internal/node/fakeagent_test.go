package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kairos-io/kairos/overlay/api"
)

// fakeAgent serves an agent's socket: see TestScripts.
func fakeAgent(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: fake-agent socket dir")
	}
	l, err := api.ListenUnix(filepath.Clean(ts.MkAbs(args[0])), -1)
	ts.Check(err)
	server := &http.Server{Handler: answers(ts.MkAbs(args[1]))}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	ts.Defer(func() {
		ts.Check(server.Close())
		<-done // closed
	})
}

// answers is a directory of answers, by method and path.
type answers string

func (dir answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := dir.note(r); err != nil {
		api.WriteError(w, err)
		return
	}
	answer, err := os.ReadFile(filepath.Join(string(dir), r.Method+strings.ReplaceAll(r.URL.Path, "/", "_")))
	if err != nil {
		api.WriteError(w, &api.Error{Message: "no such path", Status: http.StatusNotFound})
		return
	}
	if rest, ok := bytes.CutPrefix(answer, []byte("status ")); ok {
		status, text, _ := strings.Cut(string(rest), "\n")
		code, err := strconv.Atoi(status)
		if err != nil {
			api.WriteError(w, err)
			return
		}
		w.WriteHeader(code)
		answer = []byte(text)
	}
	_, _ = w.Write(answer) // the caller may be gone
}

// note appends what is asked to the file "asked", apart from reads.
func (dir answers) note(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method == http.MethodGet {
		return err
	}
	log, err := os.OpenFile(filepath.Join(string(dir), "asked"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(log, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
	return errors.Join(err, log.Close())
}
