package lab_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/labtest"
)

// ping tells whether one packet finds its way there and back.
func ping(ctx context.Context, m *lab.Machine, addr string) bool {
	_, err := m.Exec(ctx, "ping", "-n", "-c", "1", "-W", "1", addr)
	return err == nil
}

func TestNetnsMachinesReachEachOtherUnlessPartitioned(t *testing.T) {
	ctx, l := labtest.New(t, lab.Options{})
	machines := map[string]*lab.Machine{}
	for _, name := range []string{"a", "b", "c"} {
		m, err := l.AddNetns(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		machines[name] = m
	}
	reaches := func(from, to string) bool { return ping(ctx, machines[from], machines[to].Addr().String()) }
	for _, step := range []struct {
		name   string
		groups [][]string
		ab, ac bool
	}{
		{"whole", nil, true, true},
		{"c alone", [][]string{{"c"}}, true, false},
		{"a alone", [][]string{{"a"}, {"b", "c"}}, false, false},
		{"a with c", [][]string{{"b"}}, false, true},
		{"healed", nil, true, true},
	} {
		if err := l.Partition(ctx, step.groups...); err != nil {
			t.Fatal(err)
		}
		if ab, ac := reaches("a", "b"), reaches("a", "c"); ab != step.ab || ac != step.ac {
			t.Errorf("%s: a reaches b: %v, c: %v; want %v, %v", step.name, ab, ac, step.ab, step.ac)
		}
	}
	if err := machines["b"].Pause(); err != nil {
		t.Fatal(err)
	}
	if out, err := machines["a"].Exec(ctx, "hostname"); err != nil || out != "a\n" {
		t.Errorf("host name in a: %q, %v", out, err)
	}
	if err := machines["b"].Resume(); err != nil {
		t.Fatal(err)
	}
}

func TestPauseStopsAndResumes(t *testing.T) {
	ctx, l := labtest.New(t, lab.Options{})
	m, err := l.AddNetns(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := m.Command(ctx, "sh", "-c", "while read line; do echo $line; done")
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answers := make(chan string)
	go func() {
		b := make([]byte, 64)
		for {
			n, err := out.Read(b)
			if err != nil {
				return
			}
			answers <- string(b[:n])
		}
	}()
	say := func() { in.Write([]byte("hello\n")) }
	say()
	<-answers
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	say()
	select {
	case <-answers:
		t.Error("a paused machine answered")
	case <-time.After(300 * time.Millisecond):
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	<-answers
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// What a lab made is gone after Down: its namespace, links, control groups,
// processes and directory, also when Down is called by another process after
// the maker is gone.
func TestDownLeavesNothing(t *testing.T) {
	ctx, l := labtest.New(t, lab.Options{Host: true})
	if _, err := l.AddNetns(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "target")
	path := filepath.Join(t.TempDir(), "link")
	if ok, err := l.LinkOnHost(path, target); err != nil || !ok {
		t.Fatalf("link on host: %v, %v", ok, err)
	}
	if out, err := exec.Command("ip", "-br", "addr").CombinedOutput(); err != nil || !strings.Contains(string(out), l.HostAddr().String()+"/24") {
		t.Fatalf("the host has no address in the lab: %v\n%s", err, out)
	}
	again, err := lab.Open(l.Name(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("link on host: %v, want it gone", err)
	}
	if _, err := lab.Open(l.Name(), os.Stderr); !errors.Is(err, lab.ErrNoLab) {
		t.Errorf("open after down: %v", err)
	}
	labtest.CheckGone(t, l)
	if err := again.Down(ctx); err != nil {
		t.Errorf("down once more: %v", err)
	}
}

func TestTwoLabsAtOnce(t *testing.T) {
	ctx, one := labtest.New(t, lab.Options{})
	_, two := labtest.New(t, lab.Options{})
	if one.Net() == two.Net() || one.Name() == two.Name() {
		t.Fatalf("two labs share a name or a network: %s %s, %s %s", one.Name(), one.Net(), two.Name(), two.Net())
	}
	a, err := one.AddNetns(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := two.AddNetns(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if ping(ctx, a, b.Addr().String()) {
		t.Error("a machine of one lab reaches the other's")
	}
	if err := one.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if !ping(ctx, b, "127.0.0.1") {
		t.Error("taking one lab down hurt the other")
	}
}

func TestBadNames(t *testing.T) {
	ctx, l := labtest.New(t, lab.Options{})
	for _, name := range []string{"", "A", "../x", "a b", strings.Repeat("x", 40)} {
		if _, err := l.AddNetns(ctx, name); err == nil {
			t.Errorf("machine %q: no error", name)
		}
	}
	if _, err := lab.Create(ctx, lab.Options{Name: l.Name()}); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a second lab of one name: %v", err)
	}
}
