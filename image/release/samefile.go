package release

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func newSum() hash.Hash { return sha256.New() }

// sameFile reads a file and fails instead of reporting its end when its content
// is not what was described: a layout must not be written under a wrong name.
type sameFile struct {
	*os.File
	want v1.Descriptor
	sum  hash.Hash
}

// Read implements io.Reader.
func (f *sameFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	_, _ = f.sum.Write(p[:n]) // a hash never fails
	if errors.Is(err, io.EOF) && hex.EncodeToString(f.sum.Sum(nil)) != f.want.Digest.Hex {
		err = fmt.Errorf("read %s: it changed while the release was assembled", f.Name())
	}
	return n, err
}

// WriteTo hides the method of os.File, which would go past Read.
func (f *sameFile) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{f})
}
