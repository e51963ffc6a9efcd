package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
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
