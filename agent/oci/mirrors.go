package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
)

// DefaultHostsDir is where containerd looks for mirrors of registries, so that
// one file serves both the pods' images and k3s' own.
const DefaultHostsDir = "/etc/containerd/certs.d"

// Mirrors reads the mirrors of a registry from containerd's hosts.toml below
// dir: the hosts of its [host."URL"] sections, in order. Other settings in it
// (certificates, headers) are containerd's and not used here. No file: no mirrors.
func Mirrors(dir, registry string) ([]string, error) {
	if registry == "" {
		return nil, nil
	}
	names := []string{registry}
	if registry == "index.docker.io" {
		names = append(names, "docker.io")
	}
	for _, n := range append(names, "_default") {
		path := filepath.Join(dir, n, "hosts.toml")
		raw, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read mirrors: %w", err)
		}
		return parseHosts(path, string(raw))
	}
	return nil, nil
}

func parseHosts(path, text string) ([]string, error) {
	var out []string
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(line, "[host.")
		if !ok {
			continue
		}
		host, ok := strings.CutSuffix(rest, "]")
		if ok && strings.Contains(host, "\".") { // a table below a host, like [host."x".header]
			continue
		}
		if len(host) < 2 || host[0] != host[len(host)-1] || (host[0] != '"' && host[0] != '\'') {
			return nil, fmt.Errorf("read mirrors: %s:%d: expected [host.\"https://...\"]", path, i+1)
		}
		host = host[1 : len(host)-1]
		if u, err := url.Parse(host); err != nil || u.Host == "" {
			return nil, fmt.Errorf("read mirrors: %s:%d: %q is not a URL like https://mirror:5000", path, i+1, host)
		}
		out = append(out, host)
	}
	return out, nil
}
