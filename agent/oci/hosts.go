package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sirupsen/logrus"
)

// DefaultHostsDir is where containerd looks for mirrors of registries, so that
// one file serves both the pods' images and k3s' own.
const DefaultHostsDir = "/etc/containerd/certs.d"

// Host is one server that a registry's images may be had from, with how it is spoken to.
type Host struct {
	docker.RegistryHost
	registry string // whose images it has
}

// Mirrors reads containerd's settings for a registry below dir, by containerd's own
// code: the servers to ask, in order, of which the registry itself is mostly the last.
// Without settings there are none, and the registry is asked as it is. What containerd
// would pass over with a line in its log is an error here.
func Mirrors(dir, registry string) ([]Host, error) {
	if registry == "" {
		return nil, nil
	}
	if registry == name.DefaultRegistry {
		registry = "docker.io"
	}
	find := config.HostDirFromRoot(dir)
	if _, err := find(registry); errdefs.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read mirrors: %w", err)
	}
	var complaints bytes.Buffer
	logger := &logrus.Logger{Out: &complaints, Formatter: plainText{}, Level: logrus.ErrorLevel}
	ctx := log.WithLogger(context.Background(), logrus.NewEntry(logger))
	found, err := config.ConfigureHosts(ctx, config.HostOptions{HostDir: find})(registry)
	if err == nil && complaints.Len() > 0 {
		err = errors.New(strings.TrimSpace(complaints.String()))
	}
	if err != nil {
		return nil, fmt.Errorf("read the mirrors of %s: %w", registry, err)
	}
	hosts := make([]Host, len(found))
	for i, h := range found {
		hosts[i] = Host{h, registry}
	}
	return hosts, nil
}

// plainText formats what containerd would log as a part of an error.
type plainText struct{}

// Format implements logrus.Formatter.
func (plainText) Format(e *logrus.Entry) ([]byte, error) {
	return fmt.Appendf(nil, "%s: %v", e.Message, e.Data[logrus.ErrorKey]), nil
}

// reference is that of the same content at this host, in the words of the library that
// asks for it; transport puts the rest right.
func (h Host) reference(ref name.Reference) (name.Reference, error) {
	sep := ":"
	if _, ok := ref.(name.Digest); ok {
		sep = "@"
	}
	return name.ParseReference(h.address() + "/" + ref.Context().RepositoryStr() + sep + ref.Identifier())
}

// address is the host with a port where it could be read as a repository of Docker Hub.
func (h Host) address() string {
	switch {
	case strings.ContainsAny(h.Host, ".:"):
		return h.Host
	case h.Scheme == "http":
		return h.Host + ":80"
	}
	return h.Host + ":443"
}

// hostTransport asks a host as containerd would.
type hostTransport struct {
	h    Host
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper. Where an answer leads to another place, what
// is asked there is left as it is.
func (t hostTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.h.address() || req.Response != nil {
		return t.next.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host, req.Host = t.h.Scheme, t.h.Host, t.h.Host
	for key, values := range t.h.Header {
		req.Header[key] = values
	}
	if rest, ok := strings.CutPrefix(req.URL.Path, "/v2/"); ok {
		req.URL.Path, req.URL.RawPath = t.h.Path+"/"+rest, ""
		if rest != "" && t.h.proxies() {
			query := req.URL.Query()
			query.Set("ns", t.h.registry)
			req.URL.RawQuery = query.Encode()
		}
	}
	return t.next.RoundTrip(req)
}

// proxies: a server that has the images of several registries is told which one is meant.
func (h Host) proxies() bool {
	return h.Host != h.registry && (h.registry != "docker.io" || h.Host != "registry-1.docker.io")
}

// ErrUnproven: nothing vouches for what a name stands for.
var ErrUnproven = errors.New("what it says cannot be relied on")

// proven refuses to let a server say what a tag stands for that anybody on the way could
// speak for. What is named by a digest may come from anywhere, and this machine is no way.
type proven struct {
	next  http.RoundTripper
	doubt string // of whatever is asked; "": none
}

// RoundTrip implements http.RoundTripper.
func (t proven) RoundTrip(req *http.Request) (*http.Response, error) {
	why := t.doubt
	if req.URL.Scheme != "https" {
		why = "it is asked over plain HTTP"
	}
	if why != "" && !isLoopback(req.URL.Hostname()) {
		return nil, fmt.Errorf("%w: %s, and the image is named without a digest; name it NAME:TAG@sha256:..., or let %s say how that server proves who it is (https://, ca)",
			ErrUnproven, why, DefaultHostsDir)
	}
	return t.next.RoundTrip(req)
}

// doubt says why the host may be somebody else. A transport of another kind is the one
// that falls back to plain HTTP.
func (h Host) doubt() string {
	switch t, ok := h.Client.Transport.(*http.Transport); {
	case !ok:
		return "it may be asked over plain HTTP"
	case t.TLSClientConfig != nil && t.TLSClientConfig.InsecureSkipVerify:
		return "its certificate is not verified (skip_verify)"
	}
	return ""
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
