package oci

import (
	"io"
	"log"
	"path/filepath"
	"strings"
	"testing"
)

var discard = log.New(io.Discard, "", 0)

func TestParseRef(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, tc := range []struct {
		name, in    string
		local, fail bool
		digest      string
		registry    string
	}{
		{name: "docker hub", in: "docker.io/rancher/k3s:v1.2.3-k3s1", registry: "index.docker.io"},
		{name: "port and digest", in: "reg:5000/k3s@" + digest, digest: digest, registry: "reg:5000"},
		{name: "tag and digest", in: "reg.example/k3s:v1@" + digest, digest: digest, registry: "reg.example"},
		{name: "layout", in: "oci:/images/k3s", local: true},
		{name: "layout with tag and digest", in: "oci:/images/k3s:v1@" + digest, local: true, digest: digest},
		{name: "relative layout", in: "oci:images", fail: true},
		{name: "bad digest", in: "oci:/images@sha256:12", fail: true},
		{name: "upper case", in: "docker.io/Rancher/K3s", fail: true},
		{name: "empty", in: "", fail: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := ParseRef(tc.in)
			if (err != nil) != tc.fail {
				t.Fatalf("err %v", err)
			}
			if err != nil {
				return
			}
			if r.Local() != tc.local || r.Digest() != tc.digest || r.Registry() != tc.registry || r.String() != tc.in {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("docker.io/rancher/k3s:v1")
	f.Add("oci:/a:b@sha256:00")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRef(s)
		if err == nil && r.Local() && !filepath.IsAbs(r.dir) {
			t.Errorf("%q: relative directory %q", s, r.dir)
		}
	})
}
