// Command k3s stands in for k3s in the tests of the container's life. It prints
// its arguments and lives until SIGTERM; on SIGUSR1 it prints a line.
//
//	k3s server --exit=3    ends at once with this code, as after a bad flag
//	k3s server --stubborn  does not listen to SIGTERM
package main

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	fmt.Println("k3s", strings.Join(os.Args[1:], " "), "env", os.Getenv("FROM_CONFIG"))
	for _, a := range os.Args[1:] {
		if code, ok := strings.CutPrefix(a, "--exit="); ok {
			n, err := strconv.Atoi(code)
			if err != nil {
				panic(err)
			}
			os.Exit(n)
		}
	}
	for s := range signals {
		switch {
		case s == syscall.SIGUSR1:
			fmt.Println("still here")
		case !slices.Contains(os.Args, "--stubborn"):
			fmt.Println("closing")
			return
		}
	}
}
