package netns

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/lab"
)

func kairos() string { return filepath.Join(bin, "kairos") }

// tokenFile writes the world's token where `--network-token-file` finds it.
func (w *world) tokenFile() string {
	w.Helper()
	name := filepath.Join(w.TempDir(), "token")
	if err := os.WriteFile(name, []byte(w.token+"\n"), 0o600); err != nil {
		w.Fatal(err)
	}
	return name
}

// A bridge joins, sees the nodes, reaches them, and leaves nothing behind when
// it is interrupted.
func TestBridge(t *testing.T) {
	w := newWorld(t, "a", "laptop")
	a := w.start("a", "")
	laptop := w.machine("laptop")
	before := w.traces(laptop)
	out := &output{}
	cmd, ended := w.background(laptop, out, kairos(), "bridge", "--network-token-file", w.tokenFile())
	w.eventually(20*time.Second, "the bridge reaches the node", func() error {
		_, err := laptop.Exec(w.ctx, "ping", "-n", "-c", "1", "-W", "1", a.v4().String())
		return err
	})
	w.eventually(10*time.Second, "the bridge reaches the node by name", func() error {
		_, err := laptop.Exec(w.ctx, "ping", "-n", "-c", "1", "-W", "1", a.status().Name)
		return err
	})
	status, err := laptop.Exec(w.ctx, kairos(), "status")
	if err != nil || !strings.Contains(status, a.v4().String()) || !strings.Contains(status, "bridge") {
		t.Errorf("status: %v\n%s", err, status)
	}
	if err := lab.Signal(cmd, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("an interrupted bridge ends with %d: %s", code, out)
	}
	if after := w.traces(laptop); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}

// traces is what a bridge might leave on a machine.
func (w *world) traces(m *lab.Machine) string {
	w.Helper()
	out, err := m.Exec(w.ctx, "sh", "-c", "ip -br link; ip rule; ip route show table all | grep -v -e ff00: -e fe80:; cat /etc/hosts; find /run -mindepth 1 | sort")
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// What can go wrong at the start of a bridge is one line with the reason, one
// with what helps, a status that is not zero, and nothing left behind.
func TestBridgeErrors(t *testing.T) {
	w := newWorld(t, "laptop")
	laptop := w.machine("laptop")
	token := w.tokenFile()
	plain := []string{kairos(), "bridge", "--network-token-file", token}
	for _, c := range []struct {
		name  string
		setUp func(*testing.T) // undone by its Cleanup
		args  []string
		words []string // in what is written
	}{
		{"port of the API taken", w.takePort(laptop, "127.0.0.1:8080"), plain, []string{"127.0.0.1:8080", "--api"}},
		{"port of the network taken", w.takePort(laptop, "0.0.0.0:4171"), append(plain, "--listen", "0.0.0.0:4171"), []string{"4171", "--listen"}},
		{"interface name taken", w.shell(laptop, "ip link add kairos0 type bridge", "ip link del kairos0"), plain, []string{"kairos0", "--interface"}},
		{"a second bridge", w.firstBridge(laptop, plain), plain, []string{"--socket"}},
		{"no TUN device", w.shell(laptop, "mount -t tmpfs none /dev/net", "umount /dev/net"), plain, []string{"/dev/net/tun", "modprobe tun"}},
		{"not root", nil, append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "NETWORK_TOKEN=" + w.token}, plain[:2]...), []string{"sudo"}},
		{"no token", nil, plain[:2], []string{"--network-token-file"}},
		{"mistyped token", nil, append(plain[:2:2], "--network-token", w.token[:len(w.token)-1]+other(w.token)), []string{"token"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.setUp != nil {
				c.setUp(t)
			}
			before := w.traces(laptop)
			out := &output{}
			cmd, ended := w.background(laptop, out, c.args...)
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Fatalf("it runs: %s", out)
			}
			if cmd.ProcessState.Success() {
				t.Errorf("status 0: %s", out)
			}
			for _, word := range c.words {
				if !strings.Contains(out.String(), word) {
					t.Errorf("no word of %q in: %s", word, out)
				}
			}
			if lines := strings.Count(strings.TrimSpace(out.String()), "\n") + 1; lines > 3 {
				t.Errorf("%d lines: %s", lines, out)
			}
			if strings.Contains(out.String(), w.token) {
				t.Errorf("the token is in: %s", out)
			}
			if after := w.traces(laptop); after != before {
				t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// other is a character that the text does not end in.
func other(text string) string {
	if strings.HasSuffix(text, "A") {
		return "B"
	}
	return "A"
}

func (w *world) takePort(m *lab.Machine, addr string) func(*testing.T) {
	return func(t *testing.T) {
		var l net.Listener
		if err := m.InNet(func() (err error) { l, err = net.Listen("tcp4", addr); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}

func (w *world) shell(m *lab.Machine, do, undo string) func(*testing.T) {
	return func(t *testing.T) {
		if _, err := m.Exec(w.ctx, "sh", "-c", do); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := m.Exec(w.ctx, "sh", "-c", undo); err != nil {
				t.Error(err)
			}
		})
	}
}

func (w *world) firstBridge(m *lab.Machine, args []string) func(*testing.T) {
	return func(t *testing.T) {
		out := &output{}
		cmd, ended := w.background(m, out, args...)
		w.eventually(15*time.Second, "the first bridge runs", func() error {
			if !strings.Contains(out.String(), "Ctrl-C") {
				return fmt.Errorf("it says: %s", out)
			}
			return nil
		})
		t.Cleanup(func() {
			if err := lab.Signal(cmd, syscall.SIGINT); err != nil {
				t.Error(err)
			}
			<-ended
		})
	}
}
