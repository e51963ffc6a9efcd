package api

// Blob describes one piece of an image.
type Blob struct {
	MediaType string
	Digest    string // "sha256:..."
	Size      int64  // bytes
	// Config and Layers are set on a manifest only, Manifests on an index only: the
	// digests that it names and that were fetched, so that a store can protect them
	// from its garbage collection.
	Config    string
	Layers    []string
	Manifests []string
}
