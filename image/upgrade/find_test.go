package upgrade

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

var day = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// newRegistry starts an empty registry in memory and returns its host.
func newRegistry(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// push copies what a layout has under a name to a registry.
func push(t *testing.T, dir, tag, to string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	list, err := index.IndexManifest()
	must(t, err)
	for _, d := range list.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] != tag {
			continue
		}
		r, err := name.ParseReference(to)
		must(t, err)
		if d.MediaType.IsIndex() {
			inner, err := index.ImageIndex(d.Digest)
			must(t, err)
			must(t, remote.WriteIndex(r, inner))
		} else {
			img, err := index.Image(d.Digest)
			must(t, err)
			must(t, remote.Write(r, img))
		}
		return
	}
	t.Fatalf("the layout has no %s", tag)
}

// mirror is what a machine makes of containerd's settings: that another server is asked
// before a registry.
func mirror(t *testing.T, registry, other string) []oci.Host {
	t.Helper()
	dir := t.TempDir()
	own := filepath.Join(dir, strings.ReplaceAll(registry, ":", "_")+"_")
	must(t, os.Mkdir(own, 0o755))
	must(t, os.WriteFile(filepath.Join(own, "hosts.toml"), []byte("[host.'http://"+other+"']\n"), 0o600))
	hosts, err := oci.Mirrors(dir, registry)
	must(t, err)
	return hosts
}

// One release by every way that a machine may get it.
func TestUpgradeFrom(t *testing.T) {
	one, two := slotstest.New("v1", "amd64"), slotstest.New("v2", "amd64")
	host, empty := newRegistry(t), newRegistry(t)
	dir, digest := layoutOf(t, "v2", upgradetest.New(two), upgradetest.New(slotstest.New("v2", "arm64")))
	push(t, dir, "v2", host+"/os:stable")
	several, _ := layoutOf(t, "v1", upgradetest.New(one))
	_, err := upgradetest.Layout(several, "v2", upgradetest.New(two), upgradetest.New(slotstest.New("v2", "arm64")))
	must(t, err)
	for _, tc := range []struct {
		name, ref string
		mirrors   []oci.Host
	}{
		{"registry, by tag", host + "/os:stable", nil},
		{"registry, by digest", host + "/os@" + digest, nil},
		{"a mirror that has it", empty + "/os:stable", mirror(t, empty, host)},
		{"a mirror that has it not", host + "/os:stable", mirror(t, host, empty)},
		{"layout", "oci:" + dir, nil},
		{"layout, by tag", "oci:" + dir + ":v2", nil},
		{"layout of several, by tag", "oci:" + several + ":v2", nil},
		{"layout of several, by digest", "oci:" + several + "@" + digest, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t, one)
			o := at(t, tc.ref)
			o.OCI.Mirrors = tc.mirrors
			must(t, m.stage(o))
			st := m.status()
			r := st.Other.Record
			if st.Other.State != slots.Staged || st.Other.RootHash != two.RootHash || r == nil {
				t.Fatalf("got %+v", st.Other)
			}
			want := slots.Record{Image: tc.ref, Digest: digest, Version: "v2", Flavour: "generic", RootHash: two.RootHash, Generation: 2, StagedAt: day}
			if !reflect.DeepEqual(*r, want) {
				t.Errorf("got  %+v\nwant %+v", *r, want)
			}
		})
	}
}

// What an offer is to the machine that asks.
func TestNewsOf(t *testing.T) {
	one, two, three := slotstest.New("v1", "amd64"), slotstest.New("v2", "amd64"), slotstest.New("v3", "amd64")
	dir, _ := layoutOf(t, "v1", upgradetest.New(one))
	for v, s := range map[string]slotstest.System{"v2": two, "v3": three} {
		_, err := upgradetest.Layout(dir, v, upgradetest.New(s))
		must(t, err)
	}
	m := newMachine(t, one)
	must(t, m.stage(at(t, "oci:"+dir+":v2")))
	linux := filepath.Join(string(m.ESP), "EFI/Linux")
	for _, tc := range []struct {
		name, file string // what systemd-boot or systemd-bless-boot made of the staged one
		want       News
	}{{"staged", "kairos-000002+3.efi", Waiting}, {"failed", "kairos-000002+0-3.efi", Again}, {"earlier", "kairos-000000.efi", Earlier}} {
		files, err := filepath.Glob(filepath.Join(linux, "kairos-00000[02]*"))
		must(t, err)
		must(t, os.Rename(files[0], filepath.Join(linux, tc.file)))
		for tag, want := range map[string]News{"v1": Current, "v2": tc.want, "v3": New} {
			offer, err := Find(t.Context(), at(t, "oci:"+dir+":"+tag))
			must(t, err)
			if got := offer.NewsOf(m.status()); got != want {
				t.Errorf("%s: %s is %s, want %s", tc.name, tag, got, want)
			}
		}
	}
	if err := m.stage(at(t, "oci:"+dir+":v1")); !errors.Is(err, slots.ErrCurrent) {
		t.Errorf("the running system again: %v", err)
	}
}

// A container image is an image, but not one for a disk.
func TestContainerImage(t *testing.T) {
	host := newRegistry(t)
	r, err := name.ParseReference(host + "/app:v1")
	must(t, err)
	img, err := random.Image(100, 1)
	must(t, err)
	must(t, remote.Write(r, img))
	if _, err := Find(t.Context(), at(t, host+"/app:v1")); !errors.Is(err, release.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := Find(t.Context(), at(t, host+"/none:v1")); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Find(ctx, at(t, host+"/app:v1")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
