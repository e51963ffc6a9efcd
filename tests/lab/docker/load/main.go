// The load program loads the image for this machine's architecture out of an OCI
// layout into the Docker of this machine, of any version: not every one reads OCI
// layouts itself.
//
//	go run ./tests/lab/docker/load build/cli kairos:latest
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/kairos-io/kairos/tests/lab/docker"
)

func main() {
	if err := load(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func load(args []string) (err error) {
	if len(args) != 2 {
		return errors.New("usage: load LAYOUT NAME[:TAG]")
	}
	dir, err := os.MkdirTemp("", "kairos-load-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	archive := filepath.Join(dir, "image.tar")
	if err := docker.WriteArchive(archive, args[0], args[1]); err != nil {
		return err
	}
	cmd := exec.Command("docker", "load", "--input", archive)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("docker load: %w; install Docker, or start it", err)
	}
	return nil
}
