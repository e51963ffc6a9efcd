package netns

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Three nodes find each other and reach each other by IPv4, IPv6 and name.
func TestThreeNodesPingEachOther(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	nodes := w.startAll()
	for _, from := range nodes {
		for _, to := range nodes {
			s := to.status()
			for _, target := range []string{s.Addresses[0].String(), s.Addresses[1].String(), s.Name + ".kairos.internal"} {
				// A name is there a moment after the member it belongs to.
				w.eventually(10*time.Second, from.Name()+" reaches "+target, func() error { return from.ping(target) })
			}
		}
	}
}

// A node started alone says what it waits for.
func TestWaitingIsToldToAPerson(t *testing.T) {
	w := newWorld(t, "a")
	n := w.start("a", "")
	if got := n.status().Waiting; !strings.Contains(got, "token") {
		t.Errorf("waiting: %q, want a line about another machine with the same token", got)
	}
}

// TCP connections over IPv4 and IPv6 carry bytes unchanged in both directions.
func TestTransfer(t *testing.T) {
	w := newWorld(t, "a", "b")
	nodes := w.startAll()
	from, to := nodes[0], nodes[1]
	const size = 64 << 20
	for i, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			l := to.listen(to.status().Addresses[i])
			var sums [2][32]byte
			var g errgroup.Group
			g.Go(func() error {
				c, err := l.Accept()
				if err != nil {
					return err
				}
				defer c.Close()
				sums[1], err = drain(io.TeeReader(c, c), size) // sends back what it gets
				return err
			})
			c, err := from.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			began := time.Now()
			var back [32]byte
			g.Go(func() (err error) { back, err = drain(c, size); return err })
			sums[0], err = drain(io.TeeReader(rand.NewChaCha8([32]byte{1}), c), size)
			if err := errors.Join(err, g.Wait()); err != nil {
				t.Fatal(err)
			}
			if sums[0] != sums[1] || sums[0] != back {
				t.Errorf("what arrived is not what was sent: %x, %x, %x", sums[0], sums[1], back)
			}
			t.Logf("RESULT transfer %s both ways: %.0f MB/s each", family, size/1e6/time.Since(began).Seconds())
		})
	}
}

func drain(r io.Reader, n int64) (sum [32]byte, err error) {
	h := sha256.New()
	got, err := io.Copy(h, io.LimitReader(r, n))
	if err == nil && got != n {
		err = fmt.Errorf("got %d of %d bytes", got, n)
	}
	return [32]byte(h.Sum(nil)), err
}

// The network splits in 2|1: each side notices, the sides go on by themselves,
// and healing brings everybody together again.
func TestPartitionAndHeal(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	nodes := w.startAll()
	a, b, c := nodes[0], nodes[1], nodes[2]
	if err := w.lab.Partition(w.ctx, []string{"c"}); err != nil {
		t.Fatal(err)
	}
	w.eventually(60*time.Second, "both sides notice", func() error {
		for _, n := range nodes {
			got, err := n.connected()
			if err != nil {
				return err
			}
			if want := map[*node]int{a: 1, b: 1, c: 0}[n]; len(got) != want {
				return fmt.Errorf("%s is connected to %v, want %d", n.Name(), got, want)
			}
		}
		return nil
	})
	if err := a.ping(b.v4().String()); err != nil {
		t.Errorf("inside the larger side: %v", err)
	}
	if err := a.ping(c.v4().String()); err == nil {
		t.Error("a ping crossed the partition")
	}
	if err := w.lab.Heal(w.ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.awaitMesh(nodes...)
	t.Logf("RESULT healed after %.1f s", time.Since(began).Seconds())
	if err := a.ping(c.v4().String()); err != nil {
		t.Errorf("after healing: %v", err)
	}
}

// Killing the daemon leaves the interface up with its addresses; the next one
// takes it over under the same identity, and a TCP session just goes on.
func TestRestartKeepsInterfaceAndSession(t *testing.T) {
	w := newWorld(t, "a", "b")
	nodes := w.startAll()
	a, b := nodes[0], nodes[1]
	before := b.status()
	l := b.listen(b.v4())
	type accepted struct {
		net.Conn
		err error
	}
	in := make(chan accepted, 1)
	go func() {
		c, err := l.Accept()
		in <- accepted{c, err}
	}()
	out, err := a.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	server := <-in
	if server.err != nil {
		t.Fatal(server.err)
	}
	defer server.Close()
	say := func(word string) {
		t.Helper()
		deadline := time.Now().Add(60 * time.Second)
		if err := errors.Join(out.SetDeadline(deadline), server.SetDeadline(deadline)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(out, word); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(word))
		if _, err := io.ReadFull(server, got); err != nil || string(got) != word {
			t.Fatalf("over the session: %q, %v; want %q", got, err, word)
		}
	}
	say("before")
	b.kill()
	if addrs, err := b.Exec(w.ctx, "ip", "addr", "show", before.Interface); err != nil || !strings.Contains(addrs, before.Addresses[0].String()) {
		t.Errorf("the interface after the kill: %v\n%s", err, addrs)
	}
	b.run()
	say("after")
	after := b.status()
	if after.ID != before.ID || after.Addresses[0] != before.Addresses[0] || after.Addresses[1] != before.Addresses[1] {
		t.Errorf("another identity or address after a restart: %v %v, want %v %v", after.ID, after.Addresses, before.ID, before.Addresses)
	}
}

// The identity's key is readable by its owner only.
func TestKeyFileMode(t *testing.T) {
	w := newWorld(t, "a")
	n := w.start("a", "")
	for name, want := range map[string]os.FileMode{"state": 0o700, "state/identity.key": 0o600} {
		info, err := os.Stat(n.Dir() + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
	}
}
