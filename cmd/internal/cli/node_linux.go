package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// execute replaces this process: streams, signals and the exit code are the
// other's from here on.
func execute(path string, args []string) error {
	return unix.Exec(path, append([]string{path}, args...), os.Environ())
}

// noDaemonHint is for who asks a machine on which nothing of ours runs.
const noDaemonHint = "start `sudo kairos bridge --network-token-file FILE` in another window, or see `systemctl status kairos-overlay`"
