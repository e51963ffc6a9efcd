// Package oci fetches an OCI image and verifies every byte of it: from a
// registry, from a mirror of it, or from an image layout on disk (so that a
// machine without any network starts from what its own OS image carries).
//
// Pull streams the blobs that are missing into a Store, which the caller
// provides, children before parents: when the manifest arrives, everything it
// names is there. A blob that is already in the store is not transferred again,
// so that an interrupted pull goes on where it stopped.
//
// Formats: OCI image specification 1.1 (manifest, index, layout) and its
// Docker schema 2 predecessors; OCI distribution specification 1.1.
package oci
