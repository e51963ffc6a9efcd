package podnet

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// defaultReservations is where the host-local plugin keeps a file for each address that
// is in use, named by it.
const defaultReservations = "/var/lib/cni/networks/" + network

// Strays are the pod sandboxes, by the IDs of their containers, that hold an address
// outside this node's range: they got it before Kubernetes gave the node another one,
// and nobody can reach them. A directory that is not there holds none.
func (h Host) Strays(podCIDR netip.Prefix) ([]string, error) {
	dir := h.Reservations
	if dir == "" {
		dir = defaultReservations
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the addresses of pods: %w", err)
	}
	var out []string
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil || podCIDR.Contains(addr) {
			continue // the plugin's own files have other names
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // its pod ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read whose address %s is: %w", addr, err)
		}
		id, _, _ := strings.Cut(string(raw), "\n") // the interface's name follows
		if id = strings.TrimSpace(id); id != "" {
			out = append(out, id)
		}
	}
	return out, nil
}
