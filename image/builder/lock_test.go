package builder

import (
	"context"
	"errors"
	"testing"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(t.Context(), dir, "base")
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lock(gone, dir, "base"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second holder: %v", err)
	}
	if other, err := Lock(gone, dir, "tools"); err != nil {
		t.Errorf("another name: %v", err)
	} else {
		other()
	}
	unlock()
	if again, err := Lock(gone, dir, "base"); err != nil {
		t.Errorf("after it was given back: %v", err)
	} else {
		again()
	}
}
