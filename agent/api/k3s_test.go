package api

import "testing"

func TestK3sOf(t *testing.T) {
	const digest = "sha256:aa"
	for _, tt := range []struct{ name, ref, digest, image, kubernetes string }{
		{"by tag", "docker.io/rancher/k3s:v1.35.8-k3s1", "", "docker.io/rancher/k3s:v1.35.8-k3s1", "v1.35.8+k3s1"},
		{"a digest is known", "rancher/k3s:v1.35.8-k3s1", digest, "rancher/k3s:v1.35.8-k3s1@sha256:aa", "v1.35.8+k3s1"},
		{"pinned", "rancher/k3s:v1.35.8-k3s1@sha256:bb", digest, "rancher/k3s:v1.35.8-k3s1@sha256:bb", "v1.35.8+k3s1"},
		{"a candidate", "rancher/k3s:v1.36.0-rc1-k3s1", "", "rancher/k3s:v1.36.0-rc1-k3s1", "v1.36.0+rc1-k3s1"},
		{"a layout", "oci:/usr/share/images/k3s:v1.35.8-k3s1", "", "oci:/usr/share/images/k3s:v1.35.8-k3s1", "v1.35.8+k3s1"},
		{"by digest alone", "rancher/k3s@sha256:bb", "", "rancher/k3s@sha256:bb", ""},
		{"a name for whatever is newest", "mirror:5000/k3s:stable", "", "mirror:5000/k3s:stable", ""},
		{"a port is no tag", "v1.2.3:5000/k3s", "", "v1.2.3:5000/k3s", ""},
		{"no tag", "v1.2.3", "", "v1.2.3", ""},
		{"nothing", "", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := K3sOf(tt.ref, tt.digest); got != (K3s{tt.image, tt.kubernetes}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestStep(t *testing.T) {
	for _, tt := range []struct {
		name, from, to string
		want           Step
	}{
		{"the same", "v1.35.8+k3s1", "v1.35.8+k3s1", StepNone},
		{"a patch", "v1.35.4+k3s1", "v1.35.8+k3s1", StepNone},
		{"a patch back", "v1.35.8+k3s1", "v1.35.4+k3s1", StepNone},
		{"the next", "v1.35.8+k3s1", "v1.36.0+k3s1", StepUp},
		{"over ten", "v1.9.8+k3s1", "v1.10.0+k3s1", StepUp},
		{"two at once", "v1.34.8+k3s1", "v1.36.0+k3s1", StepFar},
		{"another major", "v1.36.0+k3s1", "v2.0.0+k3s1", StepFar},
		{"back", "v1.36.0+k3s1", "v1.35.8+k3s1", StepDown},
		{"a major back", "v2.0.0+k3s1", "v1.36.0+k3s1", StepDown},
		{"unknown before", "", "v1.36.0+k3s1", StepUnknown},
		{"unknown after", "v1.36.0+k3s1", "main", StepUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (K3s{"a", tt.from}).To(K3s{"b", tt.to}); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
	if got := (K3s{"a", ""}).To(K3s{"a", ""}); got != StepNone {
		t.Errorf("the very same image: %d", got)
	}
}
