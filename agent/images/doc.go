// Package images brings images to this machine's containerd, and gives them to others:
// k3s' own, which a Puller gets from the OS, members, mirrors or a registry, and those
// that pods start from without a registry, which a Seeder takes from the OS and from
// members.
//
// It stands above oci, k3s and seed, which do not know each other.
package images

import (
	"context"

	"github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/oci"
)

// K3sImages is where k3s' image goes; k3s.Runtime implements it.
type K3sImages interface {
	// ImageDigest returns "" for one that is not there as a whole.
	ImageDigest(ctx context.Context, name string) (string, error)
	ImportImage(ctx context.Context, name string, fill k3s.Fill) error
}

// PodImages is where images for pods go, and where what is given to other machines
// comes from; k3s.Runtime implements it.
type PodImages interface {
	PodImages(ctx context.Context) ([]k3s.PodImage, error)
	ImportPodImage(ctx context.Context, img k3s.PodImage, fill k3s.Fill) error
	ReleasePodImage(ctx context.Context, img k3s.PodImage) error
	K3sContent(ctx context.Context, name string) ([]api.Blob, error)
	OpenBlob(ctx context.Context, b api.Blob, pods bool) (k3s.ReadAtCloser, error)
}

// Changes tells when members may announce something else; an Event is one.
type Changes interface{ Changed() <-chan struct{} }

// Places are directories of this machine.
type Places struct {
	Hosts string // containerd's mirrors; "": oci.DefaultHostsDir
	Baked string // layout of the images that the OS brought; "": oci.DefaultBaked
}

func (p Places) orDefault() Places {
	if p.Hosts == "" {
		p.Hosts = oci.DefaultHostsDir
	}
	if p.Baked == "" {
		p.Baked = oci.DefaultBaked
	}
	return p
}
