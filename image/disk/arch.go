package disk

import "fmt"

// arch is what differs between architectures.
type arch struct {
	efi     string // in the names of EFI programs
	repart  string // systemd's name of the architecture
	console string // the serial console of servers and virtual machines
}

var arches = map[string]arch{
	"amd64": {"x64", "x86-64", "ttyS0"},
	"arm64": {"aa64", "arm64", "ttyAMA0"},
}

func findArch(name string) (arch, error) {
	a, ok := arches[name]
	if !ok {
		return arch{}, fmt.Errorf("there is no disk for the architecture %q\nhint: amd64 or arm64", name)
	}
	return a, nil
}
