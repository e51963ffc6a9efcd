package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/tests/internal/run"
)

// Paths by which the daemons say that packets travel.
const (
	pathDirect = "direct" // sealed datagrams
	pathTCP    = "tcp"    // a stream of a TCP+TLS connection
)

// noUDP is an underlay that UDP does not pass. What is inside an overlay is not its business.
const noUDP = `table inet bench {
	chain out { type filter hook output priority 0; oifname "` + nic + `" meta l4proto udp drop; }
	chain in { type filter hook input priority 0; iifname "` + nic + `" meta l4proto udp drop; }
}
`

func startFast(ctx context.Context, b *bench, w *world) (*network, error) {
	return startOurs(ctx, w, ours{programs: b.program(""), path: pathDirect})
}

// startStream takes UDP away before the daemons start, so that they have to get along without.
func startStream(ctx context.Context, b *bench, w *world) (*network, error) {
	for _, s := range w.sides {
		rules, err := s.write("rules.nft", noUDP)
		if err != nil {
			return nil, err
		}
		if err := s.exec(ctx, "nft", "-f", rules); err != nil {
			return nil, err
		}
	}
	return startOurs(ctx, w, ours{programs: b.program(""), path: pathTCP})
}

// ours is which programs are to run, and by which path packets then have to go.
type ours struct{ programs, path string }

func startOurs(ctx context.Context, w *world, o ours) (*network, error) {
	token, err := run.Out(ctx, filepath.Join(o.programs, "kairos"), "generate-token")
	if err != nil {
		return nil, err
	}
	n := &network{}
	var clients [2]*api.Client
	for i, s := range w.sides {
		config, err := s.write("overlay.yaml", ourConfig(strings.TrimSpace(token), w.sides[1-i].addr))
		if err != nil {
			return nil, err
		}
		p, err := s.start(filepath.Join(o.programs, "kairos-agent"), "overlay", "--config", config, "--state-dir", "/run/bench/state", "--name", s.name)
		if err != nil {
			return nil, err
		}
		n.daemons = append(n.daemons, p)
		clients[i] = api.NewClient(s.path("/run/kairos/overlay/overlay.sock"))
	}
	for i, c := range clients {
		p := n.daemons[i]
		err := await(ctx, 15*time.Second, func() error {
			status, err := c.Status(ctx)
			if err == nil {
				n.addr[i] = status.Addresses[0]
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(err, p.complain("did not answer"))
		}
	}
	n.check = func(ctx context.Context) error {
		for _, c := range clients {
			if err := onPath(ctx, c, o.path); err != nil {
				return err
			}
		}
		return nil
	}
	err = await(ctx, 60*time.Second, func() error {
		// A way that nobody uses is not kept: so use it.
		if err := w.sides[0].exec(ctx, "ping", "-n", "-c", "1", "-W", "1", n.addr[1].String()); err != nil {
			return err
		}
		return n.check(ctx)
	})
	if err != nil {
		return nil, n.explain(fmt.Errorf("get the path %s: %w", o.path, err))
	}
	return n, nil
}

func ourConfig(token string, peer netip.Addr) string {
	return "#cloud-config\nkairos:\n  network_token: " + token + "\n  dns: false\n  overlay:\n    mdns: false\n    peers: ['" +
		netip.AddrPortFrom(peer, 4171).String() + "']\n"
}

// onPath says whether packets to the one other member go by this path.
func onPath(ctx context.Context, c *api.Client, path string) error {
	list, err := c.Nodes(ctx, 0, 0)
	if err != nil {
		return err
	}
	for _, n := range list.Nodes {
		switch {
		case n.Self:
		case !n.Connected:
			return errors.New("the other side is not connected")
		case n.Path != path:
			return fmt.Errorf("packets go by the path %q, not %q", n.Path, path)
		default:
			return nil
		}
	}
	return errors.New("the other side is not known yet")
}
