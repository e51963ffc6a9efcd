package oci

import "testing"

// FuzzManifest feeds what a registry may answer: an index and a manifest. What
// is accepted keeps within the limits.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"config":{"size":2,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":4294967296,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}`))
	f.Add([]byte(`{"config":{"size":-9,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":4294967296,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}`))
	f.Add([]byte(`{"layers":[{"size":-1}],"config":{"size":-9223372036854775808}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if d, err := choose(raw, "amd64"); err == nil && !d.MediaType.IsImage() {
			t.Errorf("chose a %q", d.MediaType)
		}
		m, err := parseManifest(raw)
		if err != nil {
			return
		}
		total := m.manifest.Config.Size
		for _, l := range m.manifest.Layers {
			total += l.Size
		}
		if m.manifest.Config.Size < 0 || total < 0 || total > maxImage || len(m.manifest.Layers) > maxLayers {
			t.Errorf("accepted %d bytes in %d layers, configuration %d", total, len(m.manifest.Layers), m.manifest.Config.Size)
		}
	})
}
