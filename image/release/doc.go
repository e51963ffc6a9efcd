// Package release defines the form in which an operating system is published:
// an OCI image index that holds the container image of the system and, beside
// it, one release manifest for each architecture:
//
//	index (OCI image index 1.1)            what a tag names and a signature covers
//	├─ container image, linux/amd64        runs under systemd-nspawn or a container engine
//	└─ release manifest, kairos/amd64      ArtifactType
//	   ├─ config   ConfigType              version, architecture, root hash
//	   ├─ layer 0  RootType                erofs image: the read-only root
//	   ├─ layer 1  VerityType              dm-verity hash tree of it
//	   ├─ layer 2  UKIType                 unified kernel image: what the firmware starts
//	   └─ layer 3  SBOMType                what is in it
//
// The layers are the very bytes that a machine's disk holds. A node streams
// them into its partitions; nothing is unpacked or put together there, so that
// what runs is what was built, measured and signed.
//
// The platform of a release manifest has "kairos" as its operating system: it
// is not a Linux container image, and engines that look for one pass it over as
// they pass over images for other systems.
//
// Everything that is read here was written by somebody else. Documents are
// bounded before they are read, and a manifest that this package returns keeps
// to the sizes of a machine's partitions.
//
// Formats: OCI image specification 1.1 (index, manifest, artifacts).
package release
