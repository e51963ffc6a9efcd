package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// contender is one way from one side to the other.
type contender struct {
	name  string
	start func(context.Context, *bench, *world) (*network, error)
}

// network is a contender that runs.
type network struct {
	addr    [2]netip.Addr               // of the two sides
	daemons []*process                  // whose time and memory count
	check   func(context.Context) error // nil: nothing to check; else: is this still what was asked for?
}

// explain adds what the daemons wrote to an error.
func (n *network) explain(err error) error {
	for _, p := range n.daemons {
		err = errors.Join(err, p.complain("wrote"))
	}
	return err
}

// Names of the contenders that goals speak of.
const (
	nameRaw    = "raw veth"
	nameCopier = "tun copier"
	nameWG     = "wireguard-go"
	nameNebula = "nebula"
	nameStream = "ours (stream)"
	nameFast   = "ours (fast)"
	nameBefore = "ours (before)" // with -before
)

// contenders in the order of the table.
var contenders = []contender{
	{nameRaw, startRaw},
	{nameCopier, startCopier},
	{nameWG, startWireGuard},
	{nameNebula, startNebula},
	{nameStream, startStream},
	{nameFast, startFast},
	{nameBefore, startBefore},
}

// Addresses of the two sides on the overlays that let the bench choose.
var overlayAddr = [2]netip.Addr{netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("10.88.0.2")}

const overlayBits = 24

func startRaw(_ context.Context, _ *bench, w *world) (*network, error) {
	return &network{addr: [2]netip.Addr{w.sides[0].addr, w.sides[1].addr}}, nil
}

// startCopier is the limit of what a program can do in user space: one that holds an
// interface on each side and does nothing but copy. There is no underlay below it.
func startCopier(ctx context.Context, b *bench, w *world) (*network, error) {
	p, err := w.sides[0].start(b.program("copier"), "tun0", fmt.Sprintf("/proc/%d/ns/net", w.sides[1].pid()))
	if err != nil {
		return nil, err
	}
	for i, s := range w.sides {
		err := await(ctx, 10*time.Second, func() error {
			if p.over() {
				return nil
			}
			return s.exec(ctx, "ip", "link", "show", "tun0")
		})
		if err != nil || p.over() {
			return nil, errors.Join(err, p.complain("made no interface"))
		}
		if err := s.configure(ctx, "tun0", netip.PrefixFrom(overlayAddr[i], overlayBits)); err != nil {
			return nil, err
		}
	}
	return &network{addr: overlayAddr, daemons: []*process{p}}, nil
}

const wgPort = 51820

func startWireGuard(ctx context.Context, b *bench, w *world) (*network, error) {
	n := &network{addr: overlayAddr}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	for i, s := range w.sides {
		p, err := s.start(b.program("wireguard"), "-f", "wg0")
		if err != nil {
			return nil, err
		}
		n.daemons = append(n.daemons, p)
		text := uapiSet(keys[i], keys[1-i].PublicKey(), w.sides[1-i].addr, overlayAddr[1-i])
		err = await(ctx, 10*time.Second, func() error { return uapi(s.path("/run/wireguard/wg0.sock"), text) })
		if err != nil {
			return nil, errors.Join(err, p.complain("was not configured"))
		}
		if err := s.configure(ctx, "wg0", netip.PrefixFrom(overlayAddr[i], overlayBits)); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// uapiSet is what configures a wireguard-go with one peer:
// https://www.wireguard.com/xplatform/
func uapiSet(key *ecdh.PrivateKey, peer *ecdh.PublicKey, endpoint, allowed netip.Addr) string {
	var b strings.Builder
	fmt.Fprintf(&b, "set=1\nprivate_key=%s\nlisten_port=%d\nreplace_peers=true\n", hex.EncodeToString(key.Bytes()), wgPort)
	fmt.Fprintf(&b, "public_key=%s\nendpoint=%s\nreplace_allowed_ips=true\nallowed_ip=%s\n\n",
		hex.EncodeToString(peer.Bytes()), netip.AddrPortFrom(endpoint, wgPort), netip.PrefixFrom(allowed, allowed.BitLen()))
	return b.String()
}

// uapi sends a request to a wireguard-go.
func uapi(socket, text string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	answer := make([]byte, 100)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(answer[:n])); got != "errno=0" {
		return fmt.Errorf("wireguard-go answered %q", got)
	}
	return nil
}

const nebulaPort = 4242

func startNebula(ctx context.Context, b *bench, w *world) (*network, error) {
	n := &network{addr: overlayAddr}
	a := w.sides[0]
	cert, dir := b.program("nebula-cert"), "/run/bench/"
	if err := a.exec(ctx, cert, "ca", "-name", "bench", "-out-crt", dir+"ca.crt", "-out-key", dir+"ca.key"); err != nil {
		return nil, err
	}
	for i, s := range w.sides {
		err := a.exec(ctx, cert, "sign", "-ca-crt", dir+"ca.crt", "-ca-key", dir+"ca.key", "-name", s.name,
			"-networks", netip.PrefixFrom(overlayAddr[i], overlayBits).String(), "-out-crt", dir+s.name+".crt", "-out-key", dir+s.name+".key")
		if err != nil {
			return nil, err
		}
	}
	for i, s := range w.sides {
		for _, f := range []string{"ca.crt", s.name + ".crt", s.name + ".key"} {
			if err := copyFile(a.path(dir+f), s.path(dir+f)); err != nil {
				return nil, err
			}
		}
		config, err := s.write("nebula.yml", nebulaConfig(i, w.sides[0].addr))
		if err != nil {
			return nil, err
		}
		p, err := s.start(b.program("nebula"), "-config", config)
		if err != nil {
			return nil, err
		}
		n.daemons = append(n.daemons, p)
	}
	return n, nil
}

// nebulaConfig is a network of two whose first side is the lighthouse; all else is as
// nebula does it by itself.
func nebulaConfig(side int, lighthouse netip.Addr) string {
	name, first := string(rune('a'+side)), overlayAddr[0]
	lines := []string{
		"pki: {ca: /run/bench/ca.crt, cert: /run/bench/" + name + ".crt, key: /run/bench/" + name + ".key}",
		"listen: {host: 0.0.0.0, port: " + strconv.Itoa(nebulaPort) + "}",
		"tun: {dev: nebula0}",
		"cipher: aes",
		"logging: {level: warning}",
		"firewall: {outbound: [{port: any, proto: any, host: any}], inbound: [{port: any, proto: any, host: any}]}",
	}
	if side == 0 {
		lines = append(lines, "lighthouse: {am_lighthouse: true}")
	} else {
		lines = append(lines, fmt.Sprintf("lighthouse: {hosts: ['%s']}", first),
			fmt.Sprintf("static_host_map: {'%s': ['%s']}", first, netip.AddrPortFrom(lighthouse, nebulaPort)))
	}
	return strings.Join(lines, "\n") + "\n"
}

// program is the path of what the bench built.
func (b *bench) program(name string) string { return filepath.Join(b.root, "build", "bench", name) }
