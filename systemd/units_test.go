package systemd

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// fakeSystemctl puts a program of that name before all others.
func fakeSystemctl(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestUnits(t *testing.T) {
	fakeSystemctl(t, `[ "$1 $3 $4" = "show a.service b.mount" ] || exit 9
cat <<EOF
NRestarts=4
Result=exit-code
Id=a-by-its-real-name.service
ActiveState=activating
SubState=auto-restart

Id=b.mount
ActiveState=inactive
SubState=dead
EOF
`)
	got, err := Units(t.Context(), "a.service", "b.mount")
	want := []Unit{
		{Name: "a.service", Active: "activating", Sub: "auto-restart", Result: "exit-code", Restarts: 4},
		{Name: "b.mount", Active: "inactive", Sub: "dead"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestUnitsSaysWhy(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"systemd does not answer", "echo 'System has not been booted' >&2; exit 1", "System has not been booted"},
		{"fewer units than asked for", "echo Id=a; echo ActiveState=active", "1 units instead of 2"},
		{"no state", "echo Id=a; echo; echo Id=b", "without a name or a state"},
		{"not a number", "echo Id=a; echo ActiveState=active; echo NRestarts=few", "NRestarts=few"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fakeSystemctl(t, tt.script)
			if got, err := Units(t.Context(), "a", "b"); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestReboot(t *testing.T) {
	dir := t.TempDir()
	fakeSystemctl(t, `echo "$@" > `+dir+`/asked`)
	if err := Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if asked, err := os.ReadFile(filepath.Join(dir, "asked")); err != nil || string(asked) != "reboot\n" {
		t.Errorf("asked %q, %v", asked, err)
	}
	fakeSystemctl(t, "echo 'Access denied' >&2; exit 1")
	if err := Reboot(t.Context()); err == nil || !strings.Contains(err.Error(), "Access denied") {
		t.Errorf("got %v", err)
	}
}
