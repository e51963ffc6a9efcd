package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
)

// Cluster is machines of one lab that share a config.yaml.
type Cluster struct {
	Lab    *lab.Lab
	Built  Built
	Config string // the text of config.yaml
}

// New makes a token for that many machines and the config.yaml that holds it; none
// is started.
func New(ctx context.Context, l *lab.Lab, b Built, machines int) (*Cluster, error) {
	config, err := run.Out(ctx, b.Kairos(), "generate-token", "--nodes", strconv.Itoa(machines), "-o", "yaml")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Lab: l, Built: b, Config: config}
	if err := os.WriteFile(c.ConfigFile(), []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write config.yaml: %w", err)
	}
	return c, nil
}

// Open finds the cluster of a lab that another process made.
func Open(l *lab.Lab, b Built) (*Cluster, error) {
	c := &Cluster{Lab: l, Built: b}
	text, err := os.ReadFile(c.ConfigFile())
	if err != nil {
		return nil, fmt.Errorf("find the cluster's config.yaml: %w", err)
	}
	c.Config = string(text)
	return c, nil
}

// ConfigFile is where the host keeps the machines' config.yaml.
func (c *Cluster) ConfigFile() string { return filepath.Join(c.Lab.Dir(), "config.yaml") }

// Token is the network token in config.yaml.
func (c *Cluster) Token() (string, error) {
	for line := range strings.Lines(c.Config) {
		if _, value, ok := strings.Cut(line, "network_token:"); ok {
			return strings.Trim(strings.TrimSpace(value), `"'`), nil
		}
	}
	return "", errors.New("find the token: config.yaml has none")
}

// Add boots one more machine with the shared config.yaml.
func (c *Cluster) Add(ctx context.Context, name string, more ...lab.File) (*lab.Machine, error) {
	config, err := c.Built.Machine(name, c.Config, more...)
	if err != nil {
		return nil, err
	}
	return c.Lab.AddNspawn(ctx, config)
}

// Overlay is a client of a machine's overlay daemon, by its control socket.
func Overlay(m *lab.Machine) (*api.Client, error) {
	root, err := m.Root()
	if err != nil {
		return nil, err
	}
	return api.NewClient(root + "/run/kairos/overlay/overlay.sock"), nil
}

// View is what one machine says about itself.
type View struct {
	Name    string // in the mesh and in Kubernetes
	Address string // on the overlay
	Role    string // server, worker or ""
	Ready   bool   // its Kubernetes node is ready
	Text    string // one line for a person
}

// Look asks one machine how far it is. A machine that does not answer yet is
// no error but a View that says so.
func Look(ctx context.Context, m *lab.Machine) View {
	client, err := Overlay(m)
	if err != nil {
		return View{Text: "booting"}
	}
	defer client.CloseIdle()
	status, err := client.Status(ctx)
	if err != nil {
		return View{Text: "booting"}
	}
	v := View{Name: status.Name, Address: status.Addresses[0].String()}
	nodes, err := client.Nodes(ctx, 0, 0)
	if err != nil {
		v.Text = err.Error()
		return v
	}
	others := 0
	for _, n := range nodes.Nodes {
		switch {
		case n.Self:
			v.Role, v.Ready = n.Annotations["role"], n.Annotations["ready"] == "true"
			v.Text = n.Annotations["waiting"]
		case n.Connected:
			others++
		}
	}
	switch {
	case v.Ready:
		v.Text = "ready"
	case v.Text == "":
		v.Text = status.Waiting
	}
	v.Text = fmt.Sprintf("%s, sees %d more: %s", v.Address, others, strings.TrimSpace(v.Role+" "+v.Text))
	return v
}

// Meets fails unless a machine is connected to exactly that many others.
func Meets(ctx context.Context, m *lab.Machine, others int) error {
	client, err := Overlay(m)
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	list, err := client.Nodes(ctx, 0, 0)
	if err != nil {
		return err
	}
	n := 0
	for _, node := range list.Nodes {
		if node.Connected && !node.Self {
			n++
		}
	}
	if n != others {
		return fmt.Errorf("%s is connected to %d others, want %d", m.Name(), n, others)
	}
	return nil
}

// Await follows the machines until all of them are ready nodes of a
// Kubernetes, and writes a line whenever one of them gets further. The error
// says what was last waited for.
func (c *Cluster) Await(ctx context.Context, log io.Writer) ([]View, error) {
	began := time.Now()
	last := map[string]string{}
	for {
		var views []View
		ready := 0
		for _, m := range c.Lab.Machines() {
			if m.Kind() != lab.KindNspawn {
				continue
			}
			v := Look(ctx, m)
			views = append(views, v)
			if v.Ready {
				ready++
			}
			if v.Text != last[m.Name()] {
				fmt.Fprintf(log, "[%3ds] %s: %s\n", int(time.Since(began).Seconds()), m.Name(), v.Text)
				last[m.Name()] = v.Text
			}
		}
		if ready == len(views) {
			return views, nil
		}
		select {
		case <-ctx.Done():
			return views, fmt.Errorf("wait for the cluster: %w; last seen: %v", context.Cause(ctx), last)
		case <-time.After(time.Second):
		}
	}
}

// Server is the machine that runs the control plane.
func (c *Cluster) Server(ctx context.Context) (*lab.Machine, error) {
	for _, m := range c.Lab.Machines() {
		if Look(ctx, m).Role == "server" {
			return m, nil
		}
	}
	return nil, errors.New("find the server: no machine says that it is one")
}
