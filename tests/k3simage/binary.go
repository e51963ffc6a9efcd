package k3simage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// Version is the k3s release that tests/k3s pins.
const Version = "v1.25.4+k3s1"

const (
	k3sCommit = "0dc63334"
	k3sTags   = "netgo osusergo sqlite_omit_load_extension providerless urfave_cli_no_docs"
	k3sPkg    = "github.com/k3s-io/k3s/cmd/server"
)

var k3sEnv = []string{"CGO_ENABLED=1", "GOFLAGS=-mod=readonly -buildvcs=false", "GOTOOLCHAIN=local"}

func k3sLdflags() string {
	return strings.Join([]string{
		"-w -s -linkmode external -extldflags -static",
		"-X github.com/k3s-io/k3s/pkg/version.Version=" + Version,
		"-X github.com/k3s-io/k3s/pkg/version.GitCommit=" + k3sCommit,
		"-X k8s.io/client-go/pkg/version.gitVersion=" + Version,
		"-X k8s.io/component-base/version.gitVersion=" + Version,
	}, " ")
}

// Binary builds k3s from source, static and without its self-extracting
// wrapper, and returns the path of the program. Cold it takes about ten
// CPU-minutes and needs gcc and libc6-dev; unchanged inputs take no time.
func Binary(ctx context.Context, root string, log io.Writer) (string, error) {
	mod := filepath.Join(root, "tests", "k3s")
	goVersion, err := run.Do(ctx, run.Cmd{Args: []string{"go", "env", "GOVERSION"}, Dir: mod, Env: k3sEnv})
	if err != nil {
		return "", err
	}
	key, err := hashOf([]string{filepath.Join(mod, "go.mod"), filepath.Join(mod, "go.sum"), filepath.Join(mod, "tools.go")},
		goVersion, k3sTags, k3sLdflags(), strings.Join(k3sEnv, " "))
	if err != nil {
		return "", fmt.Errorf("key the k3s build: %w", err)
	}
	out := filepath.Join(root, "build", "cache", "k3s-"+key)
	if _, err := os.Stat(out); err == nil {
		return out, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("look for a built k3s: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", fmt.Errorf("make the build cache: %w", err)
	}
	fmt.Fprintf(log, "building k3s %s from source (about 5 to 10 minutes on 2 cores the first time)\n", Version)
	tmp := fmt.Sprintf("%s.%d.tmp", out, os.Getpid())
	_, err = run.Do(ctx, run.Cmd{
		Args: []string{"nice", "go", "build", "-trimpath", "-tags", k3sTags, "-ldflags", k3sLdflags(), "-o", tmp, k3sPkg},
		Dir:  mod, Env: k3sEnv,
	})
	if err != nil {
		return "", err
	}
	if err := os.Rename(tmp, out); err != nil {
		return "", fmt.Errorf("keep the built k3s: %w", err)
	}
	return out, nil
}

// hashOf is a short key over the content of files and further words.
func hashOf(files []string, words ...string) (string, error) {
	h := sha256.New()
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(name), len(b))
		h.Write(b)
	}
	for _, w := range words {
		fmt.Fprintf(h, "%d %s\n", len(w), w)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}
