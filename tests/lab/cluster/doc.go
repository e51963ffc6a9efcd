// Package cluster runs the operating system image of this repository on the
// machines of a lab: it builds what is needed, gives every machine the same
// config.yaml and follows the way from the first boot to a running Kubernetes.
//
// What only a lab needs is added to the machines as files of their own and is
// no part of the image: where the k3s image is found without a registry, pod
// images that are imported instead of pulled, and control groups that can be
// written to although the machine is a container.
package cluster
