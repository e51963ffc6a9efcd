package node

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/assess"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

// A person at a terminal sees a bar, is asked before the reboot, and may say no.
func TestUpgradeAtATerminal(t *testing.T) {
	dir := t.TempDir()
	root, layout, bin := filepath.Join(dir, "root"), filepath.Join(dir, "release"), filepath.Join(dir, "bin")
	for _, d := range []string{layout, bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := newMachine(root, "v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := upgradetest.Layout(layout, "v2", upgradetest.New(slotstest.New("v2", runtime.GOARCH))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho $1 >"+dir+"/asked\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	upgrade := func(answer string) string {
		env, said := person(answer, true)
		env.Stdout = said
		args := []string{"upgrade", "--root", root, "--config", filepath.Join(dir, "none"), "--hosts-dir", filepath.Join(dir, "none"),
			"--image", "oci:" + layout, "--overlay-socket", filepath.Join(dir, "o"), "--agent-socket", filepath.Join(dir, "a")}
		if code := cli.Run(t.Context(), verbs(env), env, args); code != cli.ExitOK {
			t.Fatalf("exit code %d: %s", code, said)
		}
		return said.String()
	}
	said := upgrade("n\n")
	for _, want := range []string{"\rkairos: write the root [##############################] 100% of 48 kB\x1b[K\n", "kairos: reboot into v2 now? [y/N] ",
		"kairos: v2 boots next, whenever that is; `kairos upgrade --apply` reboots, `kairos rollback` drops it\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("did not say %q: %q", want, said)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "asked")); err == nil {
		t.Error("the machine rebooted")
	}
	if said := upgrade("y\n"); strings.Contains(said, "write the root") || !strings.Contains(said, "is staged already") {
		t.Errorf("said %q", said)
	}
	if asked, err := os.ReadFile(filepath.Join(dir, "asked")); err != nil || string(asked) != "reboot\n" {
		t.Errorf("systemd was asked to %q, %v", asked, err)
	}
}

// A machine that lost the names of its slots still knows what it runs.
func TestOlderThanThisProgram(t *testing.T) {
	dir := t.TempDir()
	root, layout := filepath.Join(dir, "root"), filepath.Join(dir, "release")
	if err := newMachine(root, "v2"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"slots.json", "slots.old"} {
		if err := os.Remove(filepath.Join(root, "efi/kairos", name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := upgradetest.Layout(layout, "v1", upgradetest.New(slotstest.New("v1", runtime.GOARCH))); err != nil {
		t.Fatal(err)
	}
	was := cli.Version
	cli.Version = "v2"
	t.Cleanup(func() { cli.Version = was })
	env, said := person("", false)
	env.Stdout = said
	args := []string{"upgrade", "--stage", "--root", root, "--config", filepath.Join(dir, "none"), "--hosts-dir", dir,
		"--image", "oci:" + layout, "--overlay-socket", filepath.Join(dir, "o"), "--agent-socket", filepath.Join(dir, "a")}
	if code := cli.Run(t.Context(), verbs(env), env, args); code != cli.ExitFailure || !strings.Contains(said.String(), "is older than") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// Two at once would write to one slot.
func TestOneUpgradeAtATime(t *testing.T) {
	root := t.TempDir()
	if err := newMachine(root, "v1"); err != nil {
		t.Fatal(err)
	}
	m, err := openMachine(&cli.Env{}, root)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := m.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.lock(); err == nil || !strings.Contains(err.Error(), "another upgrade or rollback is at work") {
		t.Errorf("a second one: %v", err)
	}
	unlock()
	again, err := m.lock()
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// What a slot's line says, and why a system failed.
func TestOSSlot(t *testing.T) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	record := &slots.Record{Image: "r.example/os:v2", Digest: "sha256:" + strings.Repeat("ab", 32), Version: "v2", K3s: "rancher/k3s:v1.36.0-k3s1", Flavour: "cloud", RootHash: "ff", Generation: 2, StagedAt: at}
	log := func(verdict assess.Verdict, reason string) assess.Log {
		return assess.Log{}.With(assess.Record{RootHash: "ff", Verdict: verdict, Reason: reason})
	}
	failed := slots.View{Slot: slots.B, State: slots.Failed, RootHash: "ff", Record: record, Entry: &slots.Entry{Generation: 2, Counted: true, Done: 3}}
	staged, booted, empty := failed, failed, slots.View{Slot: slots.B, State: slots.Empty}
	staged.State, staged.Entry = slots.Staged, &slots.Entry{Generation: 2, Counted: true, Left: 2, Done: 1}
	booted.State, booted.Slot, booted.Entry = slots.Booted, slots.A, &slots.Entry{Generation: 1}
	for _, tc := range []struct {
		name string
		view slots.View
		log  assess.Log
		want string // the last line
	}{
		{"said why", failed, log(assess.Bad, "k3s never ready"), "v2 failed: k3s never ready"},
		{"hung while it waited", failed, log(assess.Waiting, "waiting for k3s to run"), "v2 failed: its boot ended without a verdict, while waiting for k3s to run"},
		{"never came so far", failed, assess.Log{}, "v2 failed: " + crashed},
		{"another system's record", failed, assess.Log{}.With(assess.Record{RootHash: "ee", Reason: "x"}), "v2 failed: " + crashed},
		{"tried once", staged, log(assess.Bad, "no network"), "its last boot was not good: no network"},
		{"empty", empty, assess.Log{}, ""},
	} {
		r := osReport{osSlotOf(booted, assess.Log{}), osSlotOf(tc.view, tc.log)}
		last := ""
		if lines := osLines(r); len(lines) > 0 {
			last = lines[len(lines)-1]
		}
		if last != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, last, tc.want)
		}
	}

	var out bytes.Buffer
	env := &cli.Env{Stdout: &out}
	r := osReport{osSlotOf(booted, assess.Log{}), osSlotOf(staged, assess.Log{})}
	writeOSTable(env, r, true)
	for _, want := range []string{"b      staged   v2        v1.36.0+k3s1   sha256:" + strings.Repeat("ab", 32) + "   2       cloud     r.example/os:v2   2026-11-26   2            ff"} {
		if !strings.Contains(env.Result().String(), want) {
			t.Errorf("the wide table lacks %q:\n%s", want, env.Result())
		}
	}
	raw, err := json.Marshal(r.Other)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"slot":"b","state":"staged","version":"v2","kubernetes":"v1.36.0+k3s1","flavour":"cloud","digest":"sha256:` + strings.Repeat("ab", 32) +
		`","image":"r.example/os:v2","root_hash":"ff","generation":2,"trial":true,"tries_left":2,"staged_at":"2026-11-26T12:00:00Z"}`; string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}
