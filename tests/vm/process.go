package vm

import (
	"os/exec"
	"runtime"
	"syscall"
)

// startTied starts the command so that the kernel kills it as soon as this
// process is gone, however it went. The channel gives the command's end, once.
//
// The kernel ties the child to the thread that made it rather than to the
// process, so that thread is kept for as long as the child lives.
func startTied(cmd *exec.Cmd) (<-chan error, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}
