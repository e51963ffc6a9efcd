package systemd

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen stands in for systemd's end of the notify socket.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return string(buf[:n])
}

func TestNotifier(t *testing.T) {
	var n Notifier
	tests := []struct {
		name string
		call func() error
		want string
	}{
		{"ready", n.Ready, "READY=1"},
		{"status", func() error { return n.Status("waiting for 2 more nodes") }, "STATUS=waiting for 2 more nodes"},
		{"a status cannot smuggle an assignment", func() error { return n.Status("x\nMAINPID=1") }, "STATUS=x MAINPID=1"},
		{"stopping", n.Stopping, "STOPPING=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := listen(t)
			if err := tt.call(); err != nil {
				t.Fatal(err)
			}
			if got := receive(t, conn); got != tt.want {
				t.Errorf("sent %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNotifierOutsideSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	var n Notifier
	for _, err := range []error{n.Ready(), n.Status("x"), n.Stopping()} {
		if err != nil {
			t.Errorf("outside of systemd: %v", err)
		}
	}
}

func TestNotifierSaysWhenSystemdIsDeaf(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := (Notifier{}).Ready(); err == nil {
		t.Error("no error although nobody listens")
	}
}

func TestWatchdogWithoutOne(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "")
	err := Watchdog(context.Background(), func() error {
		t.Error("alive was asked")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWatchdogRefusesNonsense(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := Watchdog(context.Background(), func() error { return nil }); err == nil {
		t.Error("no error")
	}
}

// One sign of life at once, none while alive fails, and again when it recovers.
func TestWatchdog(t *testing.T) {
	conn := listen(t)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(int((20 * time.Millisecond).Microseconds())))
	t.Setenv("WATCHDOG_PID", "")
	answers := []error{nil, errors.New("loop\nstands"), nil}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		asked := 0
		done <- Watchdog(ctx, func() error {
			asked++
			return answers[min(asked, len(answers))-1]
		})
	}()
	var got []string
	for range answers {
		got = append(got, receive(t, conn))
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
	want := "WATCHDOG=1|STATUS=not well: loop stands|WATCHDOG=1"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("sent %q, want %q", s, want)
	}
}
