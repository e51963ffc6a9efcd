//go:build mmdebstrap

package builder

import (
	"context"
	"crypto/sha256"
	"os"
	"runtime"
	"testing"
)

// Installing Debian twice gives the same layer, as long as the mirror does not
// move in between. It takes two minutes and a mirror, hence the build tag:
//
//	go test -tags mmdebstrap -run TestBaseIsReproducible ./image/builder
func TestBaseIsReproducible(t *testing.T) {
	mirrors, err := FindMirrors(Mirrors{}, os.Getenv, "/etc/apt")
	if err != nil {
		t.Fatal(err)
	}
	var sums [][32]byte
	for range 2 {
		path, err := Base(context.Background(), BaseOptions{Arch: runtime.GOARCH, Mirrors: mirrors, CacheDir: t.TempDir(), Log: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sha256.Sum256(data))
	}
	if sums[0] != sums[1] {
		t.Errorf("two installations: %x and %x", sums[0], sums[1])
	}
}
