package disk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"
)

// The UUID of the root's file system is that of its content: the same for the
// same, and never that of another release.
func TestRootUUID(t *testing.T) {
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	extra := func(name, text string, mode os.FileMode) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	link := t.TempDir()
	if err := os.Symlink("text", filepath.Join(link, "file")); err != nil {
		t.Fatal(err)
	}
	plain := ReleaseOptions{Version: "v1", Extra: extra("file", "text", 0o644)}
	want, err := rootUUID(image, plain)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := rootUUID(image, ReleaseOptions{Version: "v1", Extra: extra("file", "text", 0o644)}); err != nil || again != want {
		t.Errorf("the same release has the UUIDs %s and %s, %v", want, again, err)
	}
	if got, err := rootUUID(other, plain); err != nil || got == want {
		t.Errorf("another image has the same UUID, %v", err)
	}
	for name, o := range map[string]ReleaseOptions{
		"version": {Version: "v2", Extra: plain.Extra},
		"no file": {Version: "v1"},
		"name":    {Version: "v1", Extra: extra("else", "text", 0o644)},
		"content": {Version: "v1", Extra: extra("file", "test", 0o644)},
		"mode":    {Version: "v1", Extra: extra("file", "text", 0o755)},
		"link":    {Version: "v1", Extra: link},
	} {
		if got, err := rootUUID(image, o); err != nil || got == want {
			t.Errorf("another %s, and the same UUID, %v", name, err)
		}
	}
}
