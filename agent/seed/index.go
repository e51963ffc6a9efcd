package seed

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kairos-io/kairos/overlay/identity"
)

// What an image is for.
const (
	ForK3s  = "k3s"
	ForPods = "pods"
)

// Image is one image that a machine has as a whole, for its own platform.
type Image struct {
	Name         string `json:"name,omitempty"` // registry/repository:tag; empty where only the digest counts
	Digest       string `json:"digest"`         // what the name stands for: a manifest or an index
	Size         int64  `json:"size"`           // of that document, bytes
	Manifest     string `json:"manifest"`       // the platform's manifest; Digest where there is no index
	ManifestSize int64  `json:"manifest_size"`
	Total        int64  `json:"total"` // bytes of configuration and layers
	Arch         string `json:"arch"`  // GOARCH
	Use          string `json:"use"`   // ForK3s or ForPods
	Baked        bool   `json:"baked"` // it came with the machine's own OS image
	// By is, of a copy, whose OS brought it when it was last known: at most maxBakers.
	By []identity.ID `json:"by,omitempty"`
}

// Index is what a machine has to give.
type Index struct {
	Images []Image `json:"images"`
	// Complete says that all of what the machine's own OS brings is in it: what is not
	// called baked the OS does not bring.
	Complete bool `json:"complete,omitempty"`
}

// bakes reports whether the machine's own OS brings an image.
func (x Index) bakes(img Image) bool {
	return slices.ContainsFunc(x.Images, func(i Image) bool { return i.Baked && i.Name == img.Name && i.Digest == img.Digest })
}

// Encode returns the document and its tag, the hex SHA-256 of it. An index
// without images has neither.
func (x Index) Encode() (raw []byte, tag string, err error) {
	if len(x.Images) == 0 {
		return nil, "", nil
	}
	list := slices.Clone(x.Images)
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Digest, b.Digest), strings.Compare(a.Use, b.Use))
	})
	raw, err = json.Marshal(Index{list, x.Complete})
	if err == nil {
		_, err = parseIndex(raw)
	}
	if err != nil {
		return nil, "", fmt.Errorf("list the images of this machine: %w", err)
	}
	return raw, tagOf(raw), nil
}

func tagOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// parseIndex reads what another machine says; what it accepts is within all limits.
func parseIndex(raw []byte) (Index, error) {
	var x Index
	if len(raw) > maxIndex {
		return x, fmt.Errorf("an index of more than %d bytes", maxIndex)
	}
	if err := json.Unmarshal(raw, &x); err != nil {
		return x, fmt.Errorf("decode an index: %w", err)
	}
	if len(x.Images) > maxImages {
		return x, fmt.Errorf("an index of more than %d images", maxImages)
	}
	for i, img := range x.Images {
		if err := img.check(); err != nil {
			return x, fmt.Errorf("image %d of an index: %w", i, err)
		}
	}
	return x, nil
}

func (i Image) check() error {
	switch {
	case len(i.Name) > maxName || strings.Trim(i.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@") != "":
		return errors.New("its name is none")
	case !isDigest(i.Digest) || !isDigest(i.Manifest):
		return errors.New("a digest that is none")
	case i.Size <= 0 || i.Size > maxSize || i.ManifestSize <= 0 || i.ManifestSize > maxSize || i.Total < 0 || i.Total > maxTotal:
		return errors.New("a size that cannot be")
	case i.Arch == "" || len(i.Arch) > 32:
		return errors.New("no platform")
	case len(i.By) > maxBakers:
		return errors.New("too many that brought it")
	case i.Use != ForK3s && i.Use != ForPods:
		return errors.New("an unknown use")
	}
	return nil
}

func isDigest(s string) bool {
	text, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(text) == 2*sha256.Size && strings.Trim(text, "0123456789abcdef") == ""
}
