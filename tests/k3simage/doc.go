// Package k3simage makes the Kubernetes that the tests run, where no container
// registry can be reached: a real k3s built from source (tests/k3s) in an OCI
// layout like the one a registry would serve, and the few images that pods of
// the tests need, as archives for containerd's import.
//
// Everything is cached under the repository's build directory and keyed on its
// inputs: the second call takes a moment.
package k3simage
