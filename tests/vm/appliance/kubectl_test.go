package appliance

import (
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sync/errgroup"
)

var apiServer = regexp.MustCompile(`(?m)^\s*server:\s*"?([^"\s]+)"?\s*$`)

// kubectl runs this host's kubectl, which the machine's emulated processor would
// be slow at, with a kubeconfig that the machine gives out. It reaches the API
// from inside the machine: over the overlay.
func (g *guest) kubectl(args ...string) string {
	g.s.Helper()
	out, err := g.tryKubectl(args...)
	g.s.must(err)
	return out
}

func (g *guest) tryKubectl(args ...string) (string, error) {
	g.s.Helper()
	kubeconfig := g.run("kairos get-kubeconfig")
	m := apiServer.FindStringSubmatch(kubeconfig)
	if m == nil {
		g.s.Fatalf("%s: the kubeconfig names no server", g.Name)
	}
	api, err := url.Parse(m[1])
	g.s.must(err)
	file := filepath.Join(g.s.rack.Dir(), g.Name+".kubeconfig")
	g.s.must(os.WriteFile(file, []byte(kubeconfig), 0o600))
	door, err := net.Listen("tcp", "127.0.0.1:0")
	g.s.must(err)
	defer door.Close()
	go g.forward(door, api.Host)
	ctx, cancel := g.s.within(aCommand)
	defer cancel()
	fixed := []string{"--kubeconfig", file, "--server", "https://" + door.Addr().String(), "--tls-server-name", api.Hostname(), "--request-timeout=60s"}
	cmd := exec.CommandContext(ctx, "kubectl", append(fixed, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", &kubectlError{args, err, stderr.String()}
	}
	return strings.TrimSpace(string(out)), nil
}

type kubectlError struct {
	args   []string
	err    error
	stderr string
}

func (e *kubectlError) Error() string {
	return "kubectl " + strings.Join(e.args, " ") + ": " + e.err.Error() + ": " + strings.TrimSpace(e.stderr)
}

// forward carries connections to an address that the machine reaches, until the
// door is closed.
func (g *guest) forward(door net.Listener, addr string) {
	for {
		here, err := door.Accept()
		if err != nil {
			return
		}
		go func() {
			defer here.Close()
			there, err := g.Dial(g.s.ctx, addr)
			if err != nil {
				return // kubectl sees its connection close, and says so
			}
			defer there.Close()
			var both errgroup.Group
			for _, way := range [][2]net.Conn{{here, there}, {there, here}} {
				both.Go(func() error {
					defer way[0].Close()
					_, err := io.Copy(way[0], way[1])
					return err
				})
			}
			_ = both.Wait() // either end may close first
		}()
	}
}
