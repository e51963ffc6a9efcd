package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// User is the name under which the rack logs in; a machine's configuration has
// to make it, with Rack.AuthorizedKey and the right to use sudo.
const User = "tester"

const (
	sshPort = 22
	// oneTry bounds one attempt to log in: an emulated machine needs seconds.
	oneTry = 20 * time.Second
	// betweenTries spares a machine that is booting.
	betweenTries = 500 * time.Millisecond
)

// login is the connection that commands share, and what it showed.
type login struct {
	connecting sync.Mutex // held while somebody logs in

	mu      sync.Mutex
	client  *ssh.Client // nil: none
	hostKey string
}

func (l *login) get() *ssh.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client
}

func (l *login) set(c *ssh.Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		_ = l.client.Close() // the other end may be gone already
	}
	l.client = c
}

func (l *login) drop() { l.set(nil) }

// HostKey is the fingerprint of the host key that the machine showed last.
func (m *Machine) HostKey() string {
	m.login.mu.Lock()
	defer m.login.mu.Unlock()
	return m.login.hostKey
}

func (m *Machine) noteHostKey(_ string, _ net.Addr, key ssh.PublicKey) error {
	m.login.mu.Lock()
	defer m.login.mu.Unlock()
	m.login.hostKey = ssh.FingerprintSHA256(key)
	return nil
}

// Exec runs a shell script as root inside the machine and returns its stdout
// without the last line end. stderr is part of the error.
func (m *Machine) Exec(ctx context.Context, script string) (string, error) {
	var out bytes.Buffer
	err := m.shell(ctx, shell{script: script, out: &out})
	return strings.TrimSuffix(out.String(), "\n"), err
}

// Feed is Exec for a script that reads what it is given.
func (m *Machine) Feed(ctx context.Context, script string, in io.Reader) error {
	return m.shell(ctx, shell{script: script, in: in})
}

// Follow is Exec for a script whose lines are told as they come.
func (m *Machine) Follow(ctx context.Context, script string, line func(string)) error {
	in, out := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			line(lines.Text())
		}
	}()
	err := m.shell(ctx, shell{script: script, out: out})
	_ = out.Close()
	<-done
	return err
}

// shell is one run of a script.
type shell struct {
	script string
	in     io.Reader
	out    io.Writer
}

func (m *Machine) shell(ctx context.Context, s shell) error {
	if err := m.tryShell(ctx, s); err != nil {
		return fmt.Errorf("%s: run %q: %w", m.Name, s.script, err)
	}
	return nil
}

func (m *Machine) tryShell(ctx context.Context, s shell) error {
	client, err := m.loggedIn(ctx)
	if err != nil {
		return err
	}
	session, err := client.NewSession()
	if err != nil {
		m.login.drop()
		return err
	}
	defer session.Close()
	var errOut bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = s.in, s.out, &errOut
	err = m.orGone(ctx, client, func() error { return session.Run("sudo -n /bin/sh -c " + quote(s.script)) })
	var exit *ssh.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.login.drop()
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(errOut.String()))
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// orGone runs f and ends it, by closing the connection, with the machine or the
// context: a machine without power answers nothing.
func (m *Machine) orGone(ctx context.Context, client *ssh.Client, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	var why error
	select {
	case err := <-done:
		return err
	case <-m.Off():
		why = errOff
	case <-ctx.Done():
		why = context.Cause(ctx)
	}
	_ = client.Close()
	<-done
	return why
}

// loggedIn returns the connection that commands share, and makes it if there is none.
func (m *Machine) loggedIn(ctx context.Context) (*ssh.Client, error) {
	m.login.connecting.Lock()
	defer m.login.connecting.Unlock()
	if c := m.login.get(); c != nil {
		return c, nil
	}
	return m.connect(ctx)
}

// connect logs in once.
func (m *Machine) connect(ctx context.Context) (*ssh.Client, error) {
	if m.config.LAN == nil {
		return nil, errors.New("log in: the machine has no network")
	}
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	conn, err := m.config.LAN.Dial(ctx, netip.AddrPortFrom(m.Addr(), sshPort))
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, m.Name, &ssh.ClientConfig{
		User: User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(m.rack.key)},
		// The machine makes its key at its first boot: there is nothing to compare
		// with yet, and on this LAN nobody else. Tests compare it across boots.
		HostKeyCallback: m.noteHostKey,
	})
	if !stop() || err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("log in: %w", errors.Join(err, context.Cause(ctx)))
	}
	client := ssh.NewClient(c, channels, requests)
	m.login.set(client)
	return client, nil
}

// Dial connects to a TCP address as seen from inside the machine.
func (m *Machine) Dial(ctx context.Context, addr string) (net.Conn, error) {
	client, err := m.loggedIn(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: reach %s: %w", m.Name, addr, err)
	}
	conn, err := client.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: reach %s: %w", m.Name, addr, err)
	}
	return conn, nil
}

// AwaitBoot waits until one can log in to a boot other than the one with the
// given identifier, and returns the kernel's identifier of this one.
func (m *Machine) AwaitBoot(ctx context.Context, before string) (string, error) {
	for {
		try, cancel := context.WithTimeout(ctx, oneTry)
		id, err := m.Exec(try, "cat /proc/sys/kernel/random/boot_id")
		cancel()
		if err == nil && id != before {
			return id, nil
		}
		if err == nil {
			err = errors.New("it has not gone down yet")
		}
		select {
		case <-time.After(betweenTries):
		case <-m.Off():
			return "", m.loginFailure(errOff, err)
		case <-ctx.Done():
			return "", m.loginFailure(context.Cause(ctx), err)
		}
	}
}

func (m *Machine) loginFailure(why, last error) error {
	return fmt.Errorf("wait to log in to %s: %w; the last try: %w; the end of its console:\n%s", m.Name, why, last, m.Console.Tail())
}
