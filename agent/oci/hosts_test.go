package oci

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// hostsFile writes containerd's settings of a registry, and returns the directory of
// those of all.
func hostsFile(t *testing.T, registry, text string) string {
	t.Helper()
	dir := t.TempDir()
	own := filepath.Join(dir, strings.ReplaceAll(registry, ":", "_"))
	if strings.Contains(registry, ":") {
		own += "_"
	}
	if err := errors.Join(os.Mkdir(own, 0o755), os.WriteFile(filepath.Join(own, "hosts.toml"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mirrorsOf(t *testing.T, registry, text string) []Host {
	t.Helper()
	hosts, err := Mirrors(hostsFile(t, registry, text), registry)
	if err != nil {
		t.Fatal(err)
	}
	return hosts
}

func TestMirrors(t *testing.T) {
	hub := hostsFile(t, "docker.io", "server = \"https://registry-1.docker.io\"\n\n[host.\"https://one:5000\"]\n  capabilities = [\"pull\"]\n  [host.\"https://one:5000\".header]\n[host.'http://two/path']\n")
	for _, tc := range []struct {
		name, dir, registry string
		want                []string
		fail                string
	}{
		{"several", hub, "index.docker.io", []string{"https://one:5000/v2", "http://two/path/v2", "https://registry-1.docker.io/v2"}, ""},
		{"another registry", hub, "quay.io", nil, ""},
		{"a layout", hub, "", nil, ""},
		{"for all", hostsFile(t, "_default", "[host.\"https://all\"]\n"), "quay.io", []string{"https://all/v2", "https://quay.io/v2"}, ""},
		{"with a port", hostsFile(t, "r.example:5000", "[host.\"https://all/api\"]\noverride_path = true\n"), "r.example:5000", []string{"https://all/api", "https://r.example:5000/v2"}, ""},
		{"not TOML", hostsFile(t, "bad.example", "[host.nonsense\n"), "bad.example", nil, "hosts.toml: "},
		{"unknown capability", hostsFile(t, "bad.example", "capabilities = [\"fly\"]\n"), "bad.example", nil, "unknown capability fly"},
		{"a certificate that is not there", hostsFile(t, "bad.example", "ca = \"none.pem\"\n"), "bad.example", nil, "none.pem"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hosts, err := Mirrors(tc.dir, tc.registry)
			var got []string
			for _, h := range hosts {
				got = append(got, h.Scheme+"://"+h.Host+h.Path)
			}
			if !slices.Equal(got, tc.want) || (err != nil) != (tc.fail != "") || err != nil && !strings.Contains(err.Error(), tc.fail) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// asked notes what a server is asked.
type asked struct {
	mu   sync.Mutex
	urls []string
	keys []string
}

func (a *asked) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.urls, a.keys = append(a.urls, r.URL.String()), append(a.keys, r.Header.Get("X-Key"))
		a.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// site is one registry behind several doors.
type site struct {
	asked
	plain, tls, mutual, api string // host:port; api has it below /api instead of /v2
	ca, pair                string // files: the certificate of the TLS doors, and it with its key
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	h := s.wrap(registry.New(registry.Logger(discard)))
	start := func(h http.Handler, tlsConfig *tls.Config) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.Config.ErrorLog = discard
		if server.TLS = tlsConfig; tlsConfig != nil {
			server.StartTLS()
		} else {
			server.Start()
		}
		t.Cleanup(server.Close)
		return server
	}
	at := func(server *httptest.Server) string {
		_, host, _ := strings.Cut(server.URL, "://")
		return host
	}
	s.plain = at(start(h, nil))
	secure := start(h, &tls.Config{})
	s.tls, s.mutual = at(secure), at(start(h, &tls.Config{ClientAuth: tls.RequireAnyClientCert}))
	s.api = at(start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/api/"); ok {
			r.URL.Path = "/v2/" + rest
			h.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	}), nil))
	key, err := x509.MarshalPKCS8PrivateKey(secure.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	s.ca, s.pair = filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "pair.pem")
	both := append(slices.Clone(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := errors.Join(os.WriteFile(s.ca, cert, 0o600), os.WriteFile(s.pair, both, 0o600)); err != nil {
		t.Fatal(err)
	}
	return s
}

// The settings of a server work for this image as containerd has them work for those of pods.
func TestHostSettings(t *testing.T) {
	s, empty := newSite(t), serve(t, nil)
	img := testImage(t, "amd64")
	push(t, s.plain+"/os/k3s:v1", img)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	const name = "images.example/os/k3s"
	for _, tc := range []struct {
		name, ref, text string
		from            string // the server that gave it; "" for none
		fail            string
	}{
		{"ca", ":v1", "server = 'https://" + s.tls + "'\nca = '" + s.ca + "'\n", s.tls, ""},
		{"no ca", ":v1", "server = 'https://" + s.tls + "'\n", "", "certificate"},
		{"skip_verify", ":v1", "server = 'https://" + s.tls + "'\nskip_verify = true\n", s.tls, ""},
		{"client", ":v1", "server = 'https://" + s.mutual + "'\nca = '" + s.ca + "'\nclient = '" + s.pair + "'\n", s.mutual, ""},
		{"no client", ":v1", "server = 'https://" + s.mutual + "'\nca = '" + s.ca + "'\n", "", "certificate required"},
		{"override_path", ":v1", "server = 'http://" + s.api + "/api'\noverride_path = true\n", s.api, ""},
		{"a mirror before the server", ":v1", "server = 'http://" + empty + "'\n[host.'http://" + s.plain + "']\n", s.plain, ""},
		{"a server after a mirror", ":v1", "server = 'http://" + s.plain + "'\n[host.'http://" + empty + "']\n", s.plain, ""},
		{"pull only, by tag", ":v1", "server = 'http://" + empty + "'\n[host.'http://" + s.plain + "']\ncapabilities = ['pull']\n", "", "NAME_UNKNOWN"},
		{"pull only, by digest", "@" + digest.String(), "server = 'http://" + empty + "'\n[host.'http://" + s.plain + "']\ncapabilities = ['pull']\n", s.plain, ""},
		{"pull only, and who knows the tag", ":v1", "server = 'http://" + s.api + "/api'\noverride_path = true\n[host.'http://" + s.plain + "']\ncapabilities = ['pull']\n", s.plain, ""},
		{"push only", ":v1", "server = 'http://" + s.plain + "'\ncapabilities = ['push']\n", "", "is not there"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opts := Options{Arch: "amd64", Attempts: 1, Mirrors: mirrorsOf(t, "images.example", tc.text)}
			got, err := Pull(t.Context(), mustRef(t, name+tc.ref), newMemory(), opts)
			if (err == nil) != (tc.from != "") || err == nil && got.Source != tc.from+"/os/k3s" || err != nil && !strings.Contains(err.Error(), tc.fail) {
				t.Errorf("from %q, %v", got.Source, err)
			}
		})
	}
}

// A server for several registries learns which one is meant, and gets its headers.
func TestHostIsAskedForItsRegistry(t *testing.T) {
	s := newSite(t)
	push(t, s.plain+"/os/k3s:v1", testImage(t, "amd64"))
	s.urls, s.keys = nil, nil
	opts := Options{Arch: "amd64", Attempts: 1, Mirrors: mirrorsOf(t, "images.example", "[host.'http://"+s.plain+"'.header]\nX-Key = 'x'\n")}
	if _, err := Pull(t.Context(), mustRef(t, "images.example/os/k3s:v1"), newMemory(), opts); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.urls, "/v2/os/k3s/manifests/v1?ns=images.example") || slices.Contains(s.keys, "") {
		t.Errorf("asked %q with the keys %q", s.urls, s.keys)
	}
}

type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What a tag stands for is told by nobody whom anybody on the way could speak for.
func TestPlainHTTPNeedsADigest(t *testing.T) {
	reached := errors.New("reached the network")
	network := trip(func(*http.Request) (*http.Response, error) { return nil, reached })
	digest := "@sha256:" + strings.Repeat("ab", 32)
	for _, tc := range []struct {
		name, ref, text string
		refused         bool
	}{
		{"mirror, by tag", "images.example/k3s:v1", "server = 'http://mirror.example'\n", true},
		{"mirror, by digest", "images.example/k3s" + digest, "server = 'http://mirror.example'\n", false},
		{"mirror, by tag and digest", "images.example/k3s:v1" + digest, "server = 'http://mirror.example'\n", false},
		{"unverified, by tag", "images.example/k3s:v1", "server = 'https://mirror.example'\nskip_verify = true\n", true},
		{"unverified, by digest", "images.example/k3s" + digest, "server = 'https://mirror.example'\nskip_verify = true\n", false},
		{"HTTPS", "images.example/k3s:v1", "server = 'https://mirror.example'\n", false},
		{"HTTP when HTTPS fails", "images.example/k3s:v1", "server = 'http://mirror.example:5000'\nskip_verify = true\n", true},
		{"this machine", "images.example/k3s:v1", "server = 'http://127.0.0.1:1'\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hosts := mirrorsOf(t, "images.example", tc.text)
			sources, err := hostSources(mustRef(t, tc.ref).remote, Options{Mirrors: hosts})
			if err != nil || len(sources) != 1 {
				t.Fatal(sources, err)
			}
			h := sources[0].(*registrySource).host
			base := http.RoundTripper(network)
			if mustRef(t, tc.ref).Digest() == "" {
				base = proven{base, h.doubt()}
			}
			req := httptest.NewRequest(http.MethodGet, "https://"+h.address()+"/v2/k3s/manifests/v1", nil)
			req.RequestURI = ""
			_, err = hostTransport{*h, base}.RoundTrip(req)
			if errors.Is(err, ErrUnproven) != tc.refused || errors.Is(err, reached) == tc.refused {
				t.Errorf("got %v", err)
			}
		})
	}
	// The rule holds for what is pulled, with settings and without.
	for name, hosts := range map[string][]Host{"mirror": mirrorsOf(t, "images.example", "server = 'http://mirror.example'\n"), "none": nil} {
		opts := Options{Arch: "amd64", Attempts: 1, Mirrors: hosts, Transport: trip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Scheme == "https" {
				return nil, errors.New("no TLS here")
			}
			return nil, reached
		})}
		ref := mustRef(t, map[string]string{"mirror": "images.example/k3s:v1", "none": "10.1.2.3:5000/k3s:v1"}[name])
		if _, err := Pull(t.Context(), ref, newMemory(), opts); !errors.Is(err, ErrUnproven) || !strings.Contains(err.Error(), "NAME:TAG@sha256:") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Resolve(t.Context(), ref, opts); !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
