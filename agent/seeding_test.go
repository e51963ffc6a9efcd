package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/health"
	"github.com/kairos-io/kairos/agent/peer"
	"github.com/kairos-io/kairos/agent/seed"
	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/rights"
)

// Names of images in these tests. Nothing answers at the registry.
const (
	k3sName   = "127.0.0.1:1/rancher/k3s:v1"
	pauseName = "127.0.0.1:1/pause:3"
	appName   = "127.0.0.1:1/app:1"
)

// bake puts an OCI layout with images of these names where the machine's OS has
// its images, and returns the digests. The content is the same for the same seed.
func (m *machine) bake(t *testing.T, seed string, names ...string) map[string]string {
	t.Helper()
	dir := filepath.Join(m.dir, "images")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755)); err != nil {
		t.Fatal(err)
	}
	put := func(raw string) (digest string, size int) {
		sum := sha256.Sum256([]byte(raw))
		name := hex.EncodeToString(sum[:])
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", name), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		return "sha256:" + name, len(raw)
	}
	digests := map[string]string{}
	var entries []string
	for _, name := range names {
		config, n := put(fmt.Sprintf(`{"os":"linux","architecture":%q,"comment":%q}`, goruntime.GOARCH, name+seed))
		layer, k := put(strings.Repeat(name+seed, 3000))
		manifest, size := put(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
			"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},
			"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`, config, n, layer, k))
		digests[name] = manifest
		entries = append(entries, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"annotations":{"io.containerd.image.name":%q}}`, manifest, size, name))
	}
	index := `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(index), 0o600); err != nil {
		t.Fatal(err)
	}
	return digests
}

// newSite makes n machines of a network of declared ones; their images come from
// somewhere.
func newSite(t *testing.T, n, declared int) (*mesh, []*machine) {
	t.Helper()
	m, machines := newMesh(t, n, declared)
	for _, mc := range machines {
		mc.runtime.stock = newStock()
	}
	return m, machines
}

// seeded starts an agent whose k3s.image is ref.
func (m *machine) seeded(t *testing.T, ref string) (stop func()) {
	t.Helper()
	cfg := m.config()
	cfg.K3s.Image = ref
	return m.startAs(t, cfg)
}

// awaitImages waits until the machine has the k3s image and these images for pods.
func (m *machine) awaitImages(t *testing.T, k3sDigest string, pods map[string]string) {
	t.Helper()
	limit := time.After(2 * deadline) // a try that failed is followed by ever longer pauses
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for m.runtime.stock.k3sDigest() != k3sDigest || !maps.Equal(m.runtime.stock.images(), pods) {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("machine %d has k3s %s and %v, want %s and %v", m.daemon.index, m.runtime.stock.k3sDigest(), m.runtime.stock.images(), k3sDigest, pods)
		}
	}
}

// One machine was flashed with images in it. No registry answers anybody, and yet
// all have k3s and the images for pods, and are a cluster.
func TestOneSeedMakesASite(t *testing.T) {
	for _, tc := range []struct {
		name string
		ref  func(digest string) string
	}{
		{"k3s.image with a digest", func(d string) string { return k3sName + "@" + d }},
		{"k3s.image by name alone", func(string) string { return k3sName }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, machines := newSite(t, 3, 3)
			digests := machines[1].bake(t, "", k3sName, pauseName, appName)
			for _, mc := range machines {
				defer mc.seeded(t, tc.ref(digests[k3sName]))()
			}
			for _, mc := range machines {
				mc.awaitImages(t, digests[k3sName], map[string]string{pauseName: digests[pauseName], appName: digests[appName]})
			}
			m.wait(t, "a cluster without a registry", func(nodes []api.Node) bool {
				s, w, uids := allReady(nodes)
				return s == 1 && w == 2 && len(uids) == 1
			})
			for i, mc := range machines {
				if mc.runtime.stock.pods[pauseName].Baked != (i == 1) {
					t.Errorf("machine %d: the image is called baked: %v", i, i != 1)
				}
			}
		})
	}
}

// What one machine got from another it gives to a third, when the first is gone.
func TestSeedsSpread(t *testing.T) {
	m, machines := newSite(t, 3, 3)
	digests := machines[0].bake(t, "", k3sName, appName)
	pods := map[string]string{appName: digests[appName]}
	ref := k3sName + "@" + digests[k3sName]
	stop := machines[0].seeded(t, ref)
	defer machines[1].seeded(t, ref)()
	machines[1].awaitImages(t, digests[k3sName], pods)
	m.wait(t, "the second machine to announce them", func(nodes []api.Node) bool { return nodes[1].Annotations[api.NoteImages] != "" })
	stop()
	m.edit(func() { m.nodes[0].Annotations = nil })
	defer machines[2].seeded(t, ref)()
	machines[2].awaitImages(t, digests[k3sName], pods)
}

// Two machines were flashed with different images under one name: nobody takes
// either, both keep their own, and a person is told. They are too few for a cluster,
// so that there is no control plane whose word would decide.
func TestDifferingSeeds(t *testing.T) {
	_, machines := newSite(t, 3, 7)
	one := machines[0].bake(t, "one", k3sName, appName)
	two := machines[1].bake(t, "two", k3sName, appName)
	for _, mc := range machines[:2] {
		defer mc.seeded(t, k3sName)()
	}
	machines[0].awaitImages(t, one[k3sName], map[string]string{appName: one[appName]})
	machines[1].awaitImages(t, two[k3sName], map[string]string{appName: two[appName]})
	cfg := machines[2].config()
	cfg.K3s.Image = k3sName + "@" + one[k3sName] // a digest leaves nothing to agree on
	a := machines[2].agent(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-done, a.store.Close()); err != nil {
			t.Error(err)
		}
		a.peers.CloseIdle()
		a.overlay.CloseIdle()
	}()
	machines[2].awaitImages(t, one[k3sName], nil)
	condition := func() string {
		if s := a.report.last.Load(); s != nil {
			for _, c := range s.Conditions {
				if c.Code == health.CodePodImages {
					return c.Text + "; " + c.Hint
				}
			}
		}
		return ""
	}
	limit := time.After(deadline)
	for condition() == "" {
		select {
		case <-a.seeder.Changed():
		case <-time.After(20 * time.Millisecond):
		case <-limit:
			t.Fatal("nobody is told")
		}
	}
	if got := condition(); !strings.Contains(got, appName) || !strings.Contains(got, "n0-") || !strings.Contains(got, "n1-") || !strings.Contains(got, "bake the same image") {
		t.Errorf("it does not say what is the matter: %s", got)
	}
	// What a machine's own OS brings counts more than what others say.
	machines[0].awaitImages(t, one[k3sName], map[string]string{appName: one[appName]})
	machines[1].awaitImages(t, two[k3sName], map[string]string{appName: two[appName]})
}

// The next version of the OS brings another image under the one name and nothing
// under the other; an agent that starts again transfers nothing twice.
func TestSeedingAfterAnUpgrade(t *testing.T) {
	_, machines := newSite(t, 1, 1)
	mc := machines[0]
	old := mc.bake(t, "old", k3sName, pauseName, appName)
	stop := mc.seeded(t, k3sName)
	mc.awaitImages(t, old[k3sName], map[string]string{pauseName: old[pauseName], appName: old[appName]})
	stop()
	written := len(mc.runtime.stock.writes)
	stop = mc.seeded(t, k3sName)
	mc.awaitImages(t, old[k3sName], map[string]string{pauseName: old[pauseName], appName: old[appName]})
	stop()
	if n := len(mc.runtime.stock.writes); n != written {
		t.Errorf("a second start wrote %d blobs again", n-written)
	}
	next := mc.bake(t, "new", k3sName, pauseName)
	defer mc.seeded(t, k3sName)()
	mc.awaitImages(t, next[k3sName], map[string]string{pauseName: next[pauseName]})
}

// A member without the images is no burden: it is asked for nothing.
func TestNobodyHasAnything(t *testing.T) {
	m, machines := newSite(t, 2, 2)
	for _, mc := range machines {
		defer mc.seeded(t, k3sName)()
	}
	m.wait(t, "a word about the image", func(nodes []api.Node) bool {
		return strings.Contains(nodes[0].Annotations[api.NoteWaiting]+nodes[1].Annotations[api.NoteWaiting], "image")
	})
	for _, n := range m.nodes {
		if n.Annotations[api.NoteImages] != "" {
			t.Errorf("%s announces images that it does not have", n.Name)
		}
	}
}

// ask opens a path of one machine's agent as another machine.
func (m *mesh) ask(t *testing.T, from, to *machine, path string) error {
	t.Helper()
	overlay := api.NewClient(filepath.Join(from.dir, "overlay.sock"))
	p := peer.New(peer.Options{Overlay: overlay, Port: to.port})
	defer func() { p.CloseIdle(); overlay.CloseIdle() }()
	body, err := p.Get(t.Context(), m.nodes[to.daemon.index].ID, path, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, body)
	return errors.Join(err, body.Close())
}

// Images are given to nodes of the same cluster, and of what this machine's
// containerd holds nothing but them.
func TestWhatIsGivenToWhom(t *testing.T) {
	m, machines := newSite(t, 2, 2)
	giver := machines[0]
	digests := giver.bake(t, "", k3sName, appName)
	secret := agentapi.Blob{Size: 6}
	sum := sha256.Sum256([]byte("secret"))
	secret.Digest = "sha256:" + hex.EncodeToString(sum[:])
	if err := giver.runtime.stock.Write(t.Context(), secret, strings.NewReader("secret")); err != nil {
		t.Fatal(err)
	}
	defer giver.seeded(t, k3sName)()
	giver.awaitImages(t, digests[k3sName], map[string]string{appName: digests[appName]})
	m.wait(t, "the images to be announced", func(nodes []api.Node) bool { return nodes[0].Annotations[api.NoteImages] != "" })
	status := func(err error) int {
		var e *api.Error
		if errors.As(err, &e) {
			return e.Status
		}
		return 0
	}
	app, index := seed.BlobPath+digests[appName], seed.IndexPath+m.nodes[0].Annotations[api.NoteImages]
	for _, tc := range []struct {
		name   string
		change func(n *api.Node)
		path   string
		want   int
	}{
		{"a node of the cluster: the index", func(*api.Node) {}, index, 0},
		{"a piece of an image", func(*api.Node) {}, app, 0},
		{"other content of containerd", func(*api.Node) {}, seed.BlobPath + secret.Digest, http.StatusNotFound},
		{"a bridge", func(n *api.Node) { n.Kind = api.KindBridge }, app, http.StatusForbidden},
		{"a node of another cluster on the network", func(n *api.Node) { n.NetworkID = "other" }, app, http.StatusForbidden},
		{"its index", func(n *api.Node) { n.NetworkID = "other" }, index, http.StatusForbidden},
		{"somebody who is no member any more", func(n *api.Node) { n.ID = randomID(t) }, app, http.StatusForbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := m.nodes[1]
			m.edit(func() { tc.change(&m.nodes[1]) })
			defer m.edit(func() { m.nodes[1] = before })
			if err := m.ask(t, machines[1], giver, tc.path); (err != nil) != (tc.want != 0) || status(err) != tc.want {
				t.Errorf("got %v, want %d", err, tc.want)
			}
		})
	}
}

func randomID(t *testing.T) (id identity.ID) {
	t.Helper()
	if _, err := rand.Read(id[:]); err != nil {
		t.Fatal(err)
	}
	return id
}

// hostile is a member with the right token whose agent was written by somebody
// else: it announces the same images as the honest one, and serves them its way.
func (m *machine) hostile(t *testing.T, honest *machine, serve func(w http.ResponseWriter, r *http.Request, raw []byte)) {
	t.Helper()
	overlay := api.NewClient(filepath.Join(m.dir, "overlay.sock"))
	p := peer.New(peer.Options{Overlay: overlay, Port: m.port})
	index, tag := indexOf(t, honest)
	giveIndex := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(index) }
	giveBlob := func(w http.ResponseWriter, r *http.Request) {
		raw, err := os.ReadFile(filepath.Join(honest.dir, "images", "blobs", "sha256", strings.TrimPrefix(r.URL.Path, seed.BlobPath+"sha256:")))
		if err != nil {
			http.Error(w, "no", http.StatusNotFound)
			return
		}
		serve(w, r, raw)
	}
	endpoints := []peer.Endpoint{
		{Pattern: "GET " + seed.IndexPath, Right: rights.Peer, Handle: giveIndex},
		{Pattern: "GET " + seed.BlobPath, Right: rights.Peer, Handle: giveBlob},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, m.daemon.addr, endpoints) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		overlay.CloseIdle()
	})
	m.daemon.mesh.edit(func() { m.daemon.mesh.nodes[m.daemon.index].Annotations = map[string]string{api.NoteImages: tag} })
}

// indexOf is what an agent of the machine would announce.
func indexOf(t *testing.T, m *machine) ([]byte, string) {
	t.Helper()
	cfg := m.config()
	cfg.K3s.Image = k3sName
	a := m.agent(t, cfg)
	defer func() {
		if err := a.store.Close(); err != nil {
			t.Error(err)
		}
		a.overlay.CloseIdle()
	}()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	changed := a.seeder.Changed()
	go func() { done <- a.seeder.Run(ctx, a.world) }()
	<-changed // nothing but its own images is there to tell of
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	tag, err := a.seeder.State()
	if tag == "" {
		t.Fatalf("it announces nothing: %v", err)
	}
	return a.seeder.Index(tag), tag
}

// Two hostile members and an honest one: the images come, and they are the right
// ones, through TLS, the agents' own limits and all.
func TestHostileSeeds(t *testing.T) {
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request, []byte){
		"wrong bytes": func(w http.ResponseWriter, _ *http.Request, raw []byte) {
			_, _ = w.Write(bytes.ToUpper(append(raw[:len(raw)-1:len(raw)-1], 'x')))
		},
		"dies midway": func(w http.ResponseWriter, _ *http.Request, raw []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
			_, _ = w.Write(raw[:len(raw)/2])
			panic(http.ErrAbortHandler)
		},
		"ignores where to begin": func(w http.ResponseWriter, r *http.Request, raw []byte) {
			if r.Header.Get("Range") == "" {
				_, _ = w.Write(raw[:len(raw)/2])
				return
			}
			_, _ = w.Write(raw)
		},
		"stalls": func(w http.ResponseWriter, r *http.Request, raw []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
			_, _ = w.Write(raw[:1])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"a bomb": func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			for range 1000 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, machines := newSite(t, 4, 4)
			digests := machines[0].bake(t, "", k3sName, appName)
			for _, mc := range machines[2:] {
				mc.hostile(t, machines[0], serve)
			}
			defer machines[0].seeded(t, k3sName)()
			cfg := machines[1].config()
			cfg.K3s.Image = k3sName
			if name == "stalls" {
				machines[1].stall = time.Second
			}
			a := machines[1].agent(t, cfg)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- a.run(ctx) }()
			defer func() {
				cancel()
				if err := errors.Join(<-done, a.store.Close()); err != nil {
					t.Error(err)
				}
				a.peers.CloseIdle()
				a.overlay.CloseIdle()
			}()
			machines[1].awaitImages(t, digests[k3sName], map[string]string{appName: digests[appName]})
		})
	}
}

// The next version of the seed's OS does not bring an image any more, nor does
// anybody's: who copied it lets go of it, also who was off meanwhile, the seed does not
// copy it back, and a new machine does not get it.
func TestImagesLeaveTheNetwork(t *testing.T) {
	m, machines := newSite(t, 4, 4)
	old := machines[0].bake(t, "", k3sName, appName)
	ref, before := k3sName+"@"+old[k3sName], map[string]string{appName: old[appName]}
	stop := machines[0].seeded(t, ref)
	defer machines[1].seeded(t, ref)()
	stopThird := machines[2].seeded(t, ref)
	for _, mc := range machines[1:3] {
		mc.awaitImages(t, old[k3sName], before)
	}
	for i, mc := range machines[1:3] {
		m.wait(t, "the copy to be announced", func(n []api.Node) bool { return n[i+1].Annotations[api.NoteImages] != "" })
		mc.awaitOrigin(t)
	}
	stopThird()
	stop()
	next := machines[0].bake(t, "", k3sName, pauseName) // an upgrade of the OS
	after := map[string]string{pauseName: next[pauseName]}
	defer machines[0].seeded(t, ref)()
	machines[1].awaitImages(t, old[k3sName], after)
	defer machines[3].seeded(t, ref)()
	defer machines[2].seeded(t, ref)()
	for _, mc := range machines {
		mc.awaitImages(t, old[k3sName], after)
	}
	fresh := machines[3].runtime.stock
	fresh.mu.Lock()
	defer fresh.mu.Unlock()
	if slices.Contains(fresh.writes, old[appName]) {
		t.Error("a new machine got what nobody's OS brings any more")
	}
}

// awaitOrigin waits until the machine has written down whose OS brought its copies.
func (m *machine) awaitOrigin(t *testing.T) {
	t.Helper()
	limit := time.After(deadline)
	for {
		if raw, err := os.ReadFile(filepath.Join(m.dir, "state", "seeded.json")); err == nil && strings.Contains(string(raw), m.daemon.mesh.nodes[0].ID.String()) {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limit:
			t.Fatal("it is not written down whose OS brought the copies")
		}
	}
}
