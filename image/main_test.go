package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay/token"
)

func TestUsage(t *testing.T) {
	tests := []struct {
		name string
		args []string
	}{
		{"nothing", nil},
		{"unknown command", []string{"floppy"}},
		{"missing flag", []string{"os"}},
		{"missing flag of a medium", []string{"iso", "--out", "x"}},
		{"unknown flag", []string{"os", "--out", "x", "--sideways"}},
		{"push without a reference", []string{"push", "build/release"}},
		{"argument instead of a flag", []string{"digest", "build/os"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := run(context.Background(), tt.args); !errors.Is(err, errUsage) {
				t.Errorf("got %v, want a usage error", err)
			}
		})
	}
}

func TestDigestOfNothing(t *testing.T) {
	err := run(context.Background(), []string{"digest", "--layout", t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "open layout") {
		t.Errorf("got %v", err)
	}
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	if err := report(&out, "sha256:1", nil); err != nil || out.String() != "sha256:1\n" {
		t.Errorf("printed %q, %v", out.String(), err)
	}
}

// What a machine would refuse never gets onto a medium; the rest may carry a warning.
func TestReadConfig(t *testing.T) {
	secret, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	good := "#cloud-config\nkairos: {network_token: " + secret.Reveal() + "}\n"
	tests := []struct{ name, text, wrong, warned string }{
		{"good", good, "", ""},
		{"with something that nobody reads", good + "p2p: {}\n", "", ":3: p2p: "},
		{"wrong key", "#cloud-config\nkairos: {rolle: x}\n", "c.yaml:2: kairos.rolle: unknown key; did you mean role?", ""},
		{"no cloud-config", "kairos: {}\n", "c.yaml:1: ", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.yaml")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var warned bytes.Buffer
			got, err := readConfig(&warned, file)
			if tt.wrong == "" && (err != nil || string(got) != tt.text) || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Errorf("got %q, %v", got, err)
			}
			if !strings.Contains(warned.String(), tt.warned) {
				t.Errorf("warned %q", warned.String())
			}
		})
	}
	if got, err := readConfig(io.Discard, ""); got != nil || err != nil {
		t.Errorf("without a file: %q, %v", got, err)
	}
	for _, command := range []string{"disk", "iso"} {
		err := run(t.Context(), []string{command, "--release", "r", "--out", "o", "--config", filepath.Join(t.TempDir(), "none.yaml")})
		if err == nil || !strings.Contains(err.Error(), "read the configuration: open ") {
			t.Errorf("%s: %v", command, err)
		}
	}
}
