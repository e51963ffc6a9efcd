package appliance

import (
	"os"
	"path/filepath"
)

// neighbour starts a member of the story's network on this host: the overlay's
// daemon, in the LAN of the machines and with files of its own. It lives as long as
// the LAN. config is a cloud-config with the network's token.
func (s *story) neighbour(config string) {
	s.Helper()
	dir := filepath.Join(s.rack.Dir(), "neighbour")
	s.must(os.Mkdir(dir, 0o700))
	program := filepath.Join(dir, "kairos-agent")
	s.host("", []string{"CGO_ENABLED=0"}, "go build -o "+program+" github.com/kairos-io/kairos/cmd/kairos-agent")
	// It must not touch this host's list of names.
	file := filepath.Join(dir, "overlay.yaml")
	s.must(os.WriteFile(file, []byte(config+"\n  dns: false\n"), 0o600))
	s.must(s.lan.Start(s.Output(), program, "overlay", "--config", file, "--state-dir", filepath.Join(dir, "state"),
		"--runtime-dir", filepath.Join(dir, "run"), "--api", "off", "--name", "neighbour"))
}

// pingsOthers sends a few packets over the overlay to every member that the machine
// is connected to; there has to be one.
func (g *guest) pingsOthers() {
	g.s.Helper()
	others := 0
	for _, n := range g.status().Nodes {
		if n.Connected && !n.Self {
			others++
			g.run("ping -n -c 3 -i 0.3 -W 5 " + n.Addresses[0].String())
		}
	}
	if others == 0 {
		g.s.Errorf("%s: nobody is connected", g.Name)
	}
}
