package vm

import (
	"strings"
	"testing"
)

func TestLitPixels(t *testing.T) {
	tests := []struct {
		name, picture string
		want          int
		wrong         string
	}{
		{"black", "P6\n2 2\n255\n" + strings.Repeat("\x00", 12), 0, ""},
		{"a grey and a blue one", "P6\n2 2\n255\n\x10\x10\x10\x00\x00\x00\x00\x00\xff\x00\x00\x00", 2, ""},
		{"cut short", "P6\n2 2\n255\n\xff", 0, "read the picture"},
		{"too large", "P6\n99999 99999\n255\n", 0, "99999 by 99999"},
		{"another format", "P3\n1 1\n255\n1 1 1", 0, "head of the picture"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := litPixels(strings.NewReader(tt.picture))
			if tt.wrong == "" && (err != nil || got != tt.want) || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

// What a start says is read from the serial port, whichever console the system of the
// machine prefers; only a machine with a screen is left to itself.
func TestConsoleOfAMachine(t *testing.T) {
	for _, screen := range []bool{false, true} {
		m := &Machine{rack: &Rack{}, config: Config{Screen: screen, Arguments: "last=word"}}
		line := strings.Join(m.commandLine(), " ")
		if strings.Contains(line, "console=ttyS0 last=word") == screen || strings.Contains(line, "VGA") != screen {
			t.Errorf("with a screen: %v: %s", screen, line)
		}
	}
}
