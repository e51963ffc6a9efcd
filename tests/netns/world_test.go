// Package netns tests the real programs on a real kernel: processes in network
// namespaces of their own, with TUN devices, on a network that can be split.
// It needs root.
package netns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/cluster"
	"github.com/kairos-io/kairos/tests/lab/labtest"
)

// bin is where the programs under test were built.
var bin string

func TestMain(m *testing.M) {
	if helper(os.Getenv(helperEnv)) {
		return
	}
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func setUp() error {
	root, err := run.RepoRoot()
	if err != nil {
		return err
	}
	bin = filepath.Join(root, "build", "bin")
	if err := cluster.Programs(context.Background(), root); err != nil {
		return err
	}
	return lab.RemoveOrphans(context.Background(), os.Stderr)
}

// world is one lab with one network token.
type world struct {
	*testing.T
	ctx   context.Context
	lab   *lab.Lab
	token string
}

// newWorld makes a lab with machines of these names; nothing runs on them yet.
func newWorld(t *testing.T, machines ...string) *world {
	t.Helper()
	ctx, l := labtest.New(t, lab.Options{})
	w := &world{T: t, ctx: ctx, lab: l, token: newToken(t)}
	for _, name := range machines {
		if _, err := l.AddNetns(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func newToken(t *testing.T) string {
	t.Helper()
	out, err := run.Out(t.Context(), filepath.Join(bin, "kairos"), "generate-token")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (w *world) machine(name string) *lab.Machine {
	w.Helper()
	m, err := w.lab.Machine(name)
	if err != nil {
		w.Fatal(err)
	}
	return m
}

// node is an overlay daemon on a machine.
type node struct {
	*lab.Machine
	w      *world
	config string
	cmd    *exec.Cmd
	ended  chan struct{}
	out    *output
}

// output collects what a program writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// startAll starts the daemon on every machine and waits until all see all.
func (w *world) startAll() []*node {
	w.Helper()
	var all []*node
	for _, m := range w.lab.Machines() {
		all = append(all, w.start(m.Name(), ""))
	}
	w.awaitMesh(all...)
	return all
}

// start starts the daemon on a machine. more is further YAML of the kairos
// block, indented by two.
func (w *world) start(machine, more string) *node {
	w.Helper()
	n := &node{Machine: w.machine(machine), w: w}
	n.config = filepath.Join(n.Dir(), "overlay.yaml")
	text := "#cloud-config\nkairos:\n  network_token: " + w.token + "\n" + more
	if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	n.run()
	w.Cleanup(func() {
		if w.Failed() {
			w.Logf("%s wrote:\n%s", machine, n.out)
		}
	})
	return n
}

// run starts the daemon's process and waits until it answers.
func (n *node) run() {
	n.w.Helper()
	n.out = &output{}
	n.cmd, n.ended = n.background(n.out, filepath.Join(bin, "kairos-agent"), "overlay",
		"--config", n.config, "--state-dir", filepath.Join(n.Dir(), "state"))
	n.w.eventually(15*time.Second, n.Name()+" answers", func() error {
		select {
		case <-n.ended:
			n.w.Fatalf("%s ended: %s", n.Name(), n.out)
		default:
		}
		_, err := n.client().Status(n.w.ctx)
		return err
	})
}

// background starts a program on the node's machine.
func (n *node) background(out *output, args ...string) (*exec.Cmd, chan struct{}) {
	n.w.Helper()
	return n.w.background(n.Machine, out, args...)
}

func (w *world) background(m *lab.Machine, out *output, args ...string) (*exec.Cmd, chan struct{}) {
	w.Helper()
	cmd, err := m.Command(w.ctx, args...)
	if err != nil {
		w.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	return cmd, ended
}

// kill ends the daemon's process at once.
func (n *node) kill() {
	n.w.Helper()
	if err := lab.Signal(n.cmd, syscall.SIGKILL); err != nil {
		n.w.Fatal(err)
	}
	<-n.ended
}

func (n *node) client() *api.Client {
	n.w.Helper()
	c, err := cluster.Overlay(n.Machine)
	if err != nil {
		n.w.Fatal(err)
	}
	return c
}

func (n *node) status() api.Status {
	n.w.Helper()
	s, err := n.client().Status(n.w.ctx)
	if err != nil {
		n.w.Fatalf("%s: %v", n.Name(), err)
	}
	return s
}

func (n *node) v4() netip.Addr { n.w.Helper(); return n.status().Addresses[0] }

// connected is the names of the members that the node is connected to.
func (n *node) connected() (map[string]bool, error) {
	list, err := n.client().Nodes(n.w.ctx, 0, 0)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, m := range list.Nodes {
		if m.Connected {
			names[m.Name] = true
		}
	}
	return names, nil
}

// awaitMesh waits until each of the nodes is connected to exactly the others.
func (w *world) awaitMesh(nodes ...*node) {
	w.Helper()
	w.eventually(60*time.Second, "all see all", func() error {
		for _, n := range nodes {
			got, err := n.connected()
			if err != nil {
				return err
			}
			if len(got) != len(nodes)-1 {
				return fmt.Errorf("%s is connected to %d others: %v", n.Name(), len(got), got)
			}
		}
		return nil
	})
}

// eventually waits until f returns nil; what it said last is in the failure.
func (w *world) eventually(d time.Duration, what string, f func() error) {
	w.Helper()
	labtest.Eventually(w.T, d, what, f)
}

// ping sends one echo request from a node.
func (n *node) ping(args ...string) error {
	_, err := n.Exec(n.w.ctx, append([]string{"ping", "-n", "-c", "1", "-W", "2"}, args...)...)
	return err
}

// listen opens a TCP listener on the node's overlay address.
func (n *node) listen(addr netip.Addr) net.Listener {
	n.w.Helper()
	var l net.Listener
	err := n.InNet(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	})
	if err != nil {
		n.w.Fatal(err)
	}
	n.w.Cleanup(func() { l.Close() })
	return l
}
