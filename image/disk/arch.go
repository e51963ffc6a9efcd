package disk

import "fmt"

// espType is the partition type of an EFI system partition.
const espType = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"

// arch is what differs between architectures. Partition types: Discoverable
// Partitions Specification.
type arch struct {
	efi        string // in the names of EFI programs
	repart     string // systemd's name of the architecture
	console    string // the serial console of servers and virtual machines
	rootType   string // partition type of the root, for tools that do not know it by name
	verityType string // and of its hash tree
	sha256     string // kernel modules with the processor's own SHA-256, which every read of the root needs
}

var arches = map[string]arch{
	"amd64": {"x64", "x86-64", "ttyS0", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "sha256-ssse3"},
	"arm64": {"aa64", "arm64", "ttyAMA0", "b921b045-1df0-41c3-af44-4c6f280d3fae", "df3300ce-d69f-4c92-978c-9bfb0f38d820", "sha256-arm64 sha2-ce"},
}

func findArch(name string) (arch, error) {
	a, ok := arches[name]
	if !ok {
		return arch{}, fmt.Errorf("there is no disk for the architecture %q\nhint: amd64 or arm64", name)
	}
	return a, nil
}
