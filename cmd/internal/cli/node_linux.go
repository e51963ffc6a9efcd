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
