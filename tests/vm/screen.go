package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// LitPixels takes a picture of the machine's screen and counts its pixels that are not
// black: a screen with a line of text has hundreds. The machine has Config.Screen.
func (m *Machine) LitPixels(ctx context.Context) (int, error) {
	picture := m.file("screen.ppm")
	if err := m.ask(ctx, "screendump", map[string]any{"filename": picture}); err != nil {
		return 0, err
	}
	f, err := os.Open(picture)
	if err != nil {
		return 0, fmt.Errorf("%s: look at its screen: %w", m.Name, err)
	}
	lit, err := litPixels(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("%s: look at its screen: %w", m.Name, err)
	}
	return lit, nil
}

// litPixels reads a picture in the binary PPM format, as QEMU writes it: "P6", width,
// height and the largest value, then three bytes for each pixel.
func litPixels(r io.Reader) (int, error) {
	in := bufio.NewReader(r)
	var width, height, most int
	if _, err := fmt.Fscanf(in, "P6\n%d %d\n%d\n", &width, &height, &most); err != nil {
		return 0, fmt.Errorf("read the head of the picture: %w", err)
	}
	const biggest = 8192
	if width < 1 || width > biggest || height < 1 || height > biggest || most != 255 {
		return 0, fmt.Errorf("a picture of %d by %d pixels and %d levels", width, height, most+1)
	}
	pixels := make([]byte, 3*width*height)
	if _, err := io.ReadFull(in, pixels); err != nil {
		return 0, fmt.Errorf("read the picture: %w", err)
	}
	lit := 0
	for i := 0; i < len(pixels); i += 3 {
		if pixels[i]|pixels[i+1]|pixels[i+2] != 0 {
			lit++
		}
	}
	return lit, nil
}
