package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/cmd/internal/cli"
)

func newInstaller(env *cli.Env) *cobra.Command {
	var active, devices string
	cmd := &cobra.Command{
		Use:   "installer",
		Short: "Ask on every console what to install, on a live medium (kairos-installer.service)",
	}
	cmd.Flags().StringVar(&active, "active", "/sys/class/tty/console/active", "file with the names of the consoles")
	cmd.Flags().StringVar(&devices, "dev", "/dev", "directory of their devices")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		names, err := os.ReadFile(active)
		if err != nil {
			return fmt.Errorf("find the consoles: %w", err)
		}
		c, err := openConsoles(devices, strings.Fields(string(names)))
		if err != nil {
			return err
		}
		defer c.close()
		hush(env)
		return serveConsoles(cmd.Context(), c.env(), machineTools)
	}
	return cmd
}

// hush keeps what others write to the console from running over the questions, for as
// long as this process lives: the kernel's messages, emergencies apart, and what systemd
// and other units send to /dev/console. All of it is in the journal.
func hush(env *cli.Env) {
	const onlyEmergencies = "1"
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte(onlyEmergencies), 0); err != nil {
		env.Say("keep the kernel off the console: %v", err)
	}
	if err := divertConsole(); err != nil {
		env.Say("keep other units off the console: %v", err)
	}
}

// divertConsole makes all that is written to /dev/console go to a pseudo terminal, where
// it is dropped (TIOCCONS in ioctl_tty(2)). The terminals themselves stay as they are.
func divertConsole() error {
	sink, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	const unlocked = 0
	if err := errors.Join(unix.IoctlSetPointerInt(int(sink.Fd()), unix.TIOCSPTLCK, unlocked), divertTo(sink)); err != nil {
		return errors.Join(err, sink.Close())
	}
	go func() { _, _ = io.Copy(io.Discard, sink) }() // ends with the process, and the diversion with it
	return nil
}

// divertTo names the other side of a pseudo terminal to the kernel, which keeps it open.
func divertTo(sink *os.File) error {
	n, err := unix.IoctlGetInt(int(sink.Fd()), unix.TIOCGPTN)
	if err != nil {
		return err
	}
	side, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(int(side.Fd()), unix.TIOCCONS, 0), side.Close())
}

// serveConsoles runs the wizard until something was installed and the machine reboots.
func serveConsoles(ctx context.Context, env *cli.Env, tools installTools) error {
	ask := newAsker(env)
	for {
		env.Say("answer %q to any question for a shell of this medium", shellWord)
		i := &installer{env: env, tools: tools, ask: ask}
		err := i.wizard(ctx, "")
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		env.Fail(err)
		if _, err := ask.line(ctx, "press Enter to start over: "); err != nil {
			return ignoreEnd(ctx, err)
		}
	}
	if _, err := ask.line(ctx, "press Enter to reboot: "); err != nil {
		return ignoreEnd(ctx, err)
	}
	return reboot(ctx)
}

// ignoreEnd: a unit that is stopped has not failed.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func reboot(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "systemctl", "reboot").CombinedOutput(); err != nil {
		return fmt.Errorf("reboot: %w: %s", err, out)
	}
	return nil
}

// consoles are all consoles of a machine as one: what is said goes to each, and
// whoever types first is heard. A machine's person may sit at a screen or at the
// other end of a serial line, and nothing tells which.
type consoles struct {
	files []*os.File
	busy  []atomic.Bool // a shell has this one
	in    *io.PipeReader
	out   *io.PipeWriter
	mu    sync.Mutex // a line at a time goes into the pipe

	command func() *exec.Cmd // makes a shell
}

// openConsoles opens the devices of these names; "tty0" stands for the screen,
// whose first terminal is tty1.
func openConsoles(dir string, names []string) (*consoles, error) {
	c := &consoles{command: shellCommand}
	var errs []error
	for _, name := range names {
		if name == "tty0" {
			name = "tty1"
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			errs = append(errs, err) // configured, but not there
			continue
		}
		c.files = append(c.files, f)
	}
	if len(c.files) == 0 {
		return nil, errors.Join(append(errs, errors.New("open the consoles: there is none"))...)
	}
	c.in, c.out = io.Pipe()
	c.busy = make([]atomic.Bool, len(c.files))
	for n := range c.files {
		go c.listen(n)
	}
	return c, nil
}

// shellWord, as an answer to anything, is for a shell at the console where it was typed.
const shellWord = "shell"

// listen passes on whole lines. A console that hangs up ends its own part only.
func (c *consoles) listen(n int) {
	lines := bufio.NewScanner(c.files[n])
	for lines.Scan() {
		line := append(lines.Bytes(), '\n')
		if strings.TrimSpace(lines.Text()) == shellWord {
			c.shell(n)
			line = []byte("\n") // has the question asked once more
		}
		c.mu.Lock()
		_, err := c.out.Write(line)
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// shell gives a console to a shell until that ends. Whoever stands there could start the
// machine from a medium of their own as well; a live medium asks for no password.
func (c *consoles) shell(n int) {
	f := c.files[n]
	c.busy[n].Store(true)
	defer c.busy[n].Store(false)
	say := func(line string) { _, _ = fmt.Fprintln(f, "kairos: "+line) } // nobody is left to tell
	say("a shell of this medium, as root; `exit` goes back to the installer")
	cmd := c.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Run(); err != nil {
		var status *exec.ExitError // of the last command typed
		if !errors.As(err, &status) {
			say("start a shell: " + err.Error())
		}
	}
}

func shellCommand() *exec.Cmd {
	cmd := exec.Command("/bin/bash", "-l")
	cmd.Dir = "/root"
	cmd.Env = append(os.Environ(), "HOME=/root", "TERM=linux")
	return cmd
}

// Write implements io.Writer: a console that cannot be written to must not
// silence the others.
func (c *consoles) Write(p []byte) (int, error) {
	for n, f := range c.files {
		if !c.busy[n].Load() {
			_, _ = f.Write(p) // see above
		}
	}
	return len(p), nil
}

// env is the process's view of a person at any of the consoles.
func (c *consoles) env() *cli.Env {
	terminal := true
	return &cli.Env{Stdin: c.in, Stdout: c, Stderr: c, Program: "kairos", Terminal: &terminal}
}

func (c *consoles) close() {
	_ = c.in.Close() // ends the writers; a pipe's close has no error
	for _, f := range c.files {
		_ = f.Close() // nothing is buffered in it
	}
}
