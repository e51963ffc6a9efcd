package systemd

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed all:root
var root embed.FS

// unitDir is where units live, relative to the root of the file system.
const unitDir = "usr/lib/systemd/system"

// presetFile says which units are on; lastPresetFile turns off the rest.
const (
	presetFile     = "usr/lib/systemd/system-preset/10-kairos.preset"
	lastPresetFile = "usr/lib/systemd/system-preset/99-kairos.preset"
)

// User is the account that owns /var/lib/kairos/overlay and runs the overlay
// daemon; UserID is its number, which sysusers.d says too.
const (
	User   = "kairos-overlay"
	UserID = 810
)

// Names of the units, as systemctl takes them.
const (
	IntakeUnit     = "kairos-intake.service"
	FetchUnit      = "kairos-fetch.service"
	HostnameUnit   = "kairos-hostname.service"
	ConfigUnit     = "kairos-config.service"
	OverlayUnit    = "kairos-overlay.service"
	ReloadPath     = "kairos-overlay-config.path"
	ReloadUnit     = "kairos-overlay-config.service"
	AgentUnit      = "kairos-agent.service"
	BootCheckUnit  = "kairos-boot-check.service"
	BootFailedUnit = "kairos-boot-failed.service"
	ConsoleUnit    = "kairos-console.service"
	InstallerUnit  = "kairos-installer.service"
	Target         = "kairos.target"
)

// Files is the install tree: paths in it are paths of the machine without the
// leading slash. Every file is meant to be root's with mode 0644.
func Files() fs.FS {
	sub, err := fs.Sub(root, "root")
	if err != nil {
		panic(err) // the tree is part of the program
	}
	return sub
}

// DistributionPresets returns our preset files by name with the rules for units
// that are not ours: an image can be made by them before Files is in it.
func DistributionPresets() map[string]string {
	presets := map[string]string{}
	for _, name := range []string{presetFile, lastPresetFile} {
		text, err := fs.ReadFile(Files(), name)
		if err != nil {
			panic(err) // the tree is part of the program
		}
		var rules strings.Builder
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) == 2 && fields[0] != "#" && !strings.HasPrefix(fields[1], "kairos") {
				rules.WriteString(line)
			}
		}
		presets[path.Base(name)] = rules.String()
	}
	return presets
}

// Link is a symlink of the install tree.
type Link struct {
	Path   string // relative to the root of the file system
	Target string // absolute
}

// Links returns the symlinks that turn on our units, sorted by path: what
// `systemctl enable` would make of the preset and the units' [Install]
// sections. systemd does the same at the first boot of a machine; an image that
// has them already works too where that step is left out.
func Links() ([]Link, error) {
	files := Files()
	preset, err := fs.ReadFile(files, presetFile)
	if err != nil {
		return nil, fmt.Errorf("read preset: %w", err)
	}
	var links []Link
	for line := range strings.Lines(string(preset)) {
		unit, on := strings.CutPrefix(strings.TrimSpace(line), "enable ")
		if !on {
			continue
		}
		text, err := fs.ReadFile(files, path.Join(unitDir, unit))
		if err != nil {
			continue // a unit of the distribution, enabled by its package
		}
		for _, parent := range enabledBy(string(text)) {
			links = append(links, Link{
				Path:   path.Join("etc/systemd/system", parent, unit),
				Target: "/" + path.Join(unitDir, unit),
			})
		}
	}
	slices.SortFunc(links, func(a, b Link) int { return strings.Compare(a.Path, b.Path) })
	return links, nil
}

// enabledBy reads the two settings of [Install] that our units use, and returns
// the directories that get a link.
func enabledBy(unit string) []string {
	var out []string
	section := ""
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		if section != "[Install]" {
			continue
		}
		for key, suffix := range map[string]string{"WantedBy=": ".wants", "RequiredBy=": ".requires"} {
			value, ok := strings.CutPrefix(line, key)
			if !ok {
				continue
			}
			for _, parent := range strings.Fields(value) {
				out = append(out, parent+suffix)
			}
		}
	}
	return out
}
