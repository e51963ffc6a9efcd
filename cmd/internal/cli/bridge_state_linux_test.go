package cli

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/overlay"
	"github.com/kairos-io/kairos/overlay/token"
)

// A bridge keeps its identity by user, network and machine, where there is a place for it.
func TestKeepIdentity(t *testing.T) {
	tok, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	home, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	file := filepath.Join(home, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	machine := filepath.Join(home, "machine-id")
	saved := machineID
	machineID = machine
	defer func() { machineID = saved }()
	for _, tc := range []struct {
		name, home, xdg, sudo string
		want                  string // below which it is; "" for nowhere
	}{
		{"a home", home, "", "", filepath.Join(home, ".local", "state")},
		{"a state directory", home, state, "", state},
		{"one that is no absolute path", home, "state", "", filepath.Join(home, ".local", "state")},
		{"a home that is not there", filepath.Join(home, "none"), "", "", ""},
		{"no home", "", "", "", ""},
		{"nothing can be made there", home, filepath.Join(file, "x"), "", ""},
		{"behind sudo, a user without a home", home, "", "65534", ""},
		{"behind sudo, nobody knows whom", home, "", "61234", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.sudo != "" && os.Geteuid() != 0 {
				t.Skip("only root believes SUDO_UID")
			}
			for k, v := range map[string]string{"HOME": tc.home, "XDG_STATE_HOME": tc.xdg, "SUDO_UID": tc.sudo} {
				t.Setenv(k, v)
			}
			opts := overlay.Options{Token: tok, Log: slog.New(slog.DiscardHandler)}
			keepIdentity(&opts)
			if tc.want == "" && opts.StateDir != "" || !strings.HasPrefix(opts.StateDir, tc.want) {
				t.Fatalf("it is kept in %q, want %q", opts.StateDir, tc.want)
			}
			if tc.want == "" {
				return
			}
			if info, err := os.Stat(opts.StateDir); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v", info, err)
			}
			if strings.Contains(opts.StateDir, tok.Reveal()[8:20]) {
				t.Error("the directory's name holds a part of the token")
			}
		})
	}
	other, err := token.Generate(rand.Reader, 3)
	if err != nil {
		t.Fatal(err)
	}
	one := networkDir(tok)
	if err := os.WriteFile(machine, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if networkDir(tok) == one || networkDir(tok) == networkDir(other) {
		t.Error("another machine or network has the same identity")
	}
}
