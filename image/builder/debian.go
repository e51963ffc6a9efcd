package builder

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// DebianPackage is an installed package as dpkg has it.
type DebianPackage struct {
	Name, Version, Arch string
	Source              string // name and version of the source package
	License             string // SPDX expression; empty where the copyright file has none that is understood
}

// debianPackages reads what is installed out of the base layer, a tar.gz.
func debianPackages(basePath string) ([]DebianPackage, error) {
	f, err := os.Open(basePath)
	if err != nil {
		return nil, fmt.Errorf("read base layer: %w", err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read base layer: %w", err)
	}
	var status []byte
	licenses := map[string]string{}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read base layer: %w", err)
		}
		switch pkg, isDoc := strings.CutPrefix(path.Dir(h.Name), "usr/share/doc/"); {
		case h.Name == "var/lib/dpkg/status":
			status, err = io.ReadAll(tr)
		case isDoc && path.Base(h.Name) == "copyright" && h.Typeflag == tar.TypeReg && !strings.Contains(pkg, "/"):
			var text []byte
			text, err = io.ReadAll(io.LimitReader(tr, 1<<20))
			licenses[pkg] = licenseOf(text)
		}
		if err != nil {
			return nil, fmt.Errorf("read base layer: %s: %w", h.Name, err)
		}
	}
	if status == nil {
		return nil, errors.New("read base layer: it has no var/lib/dpkg/status, so what is in it is not known\nhint: --base-tar takes a Debian system")
	}
	return parseStatus(status, licenses)
}

// parseStatus reads dpkg's status file (deb-control(5) stanzas).
func parseStatus(status []byte, licenses map[string]string) ([]DebianPackage, error) {
	var out []DebianPackage
	for stanza := range strings.SplitSeq(string(status), "\n\n") {
		field := fieldsOf(stanza)
		if !strings.HasSuffix(field["Status"], " installed") {
			continue
		}
		p := DebianPackage{Name: field["Package"], Version: field["Version"], Arch: field["Architecture"], License: licenses[field["Package"]]}
		if p.Name == "" || p.Version == "" || p.Arch == "" {
			return nil, fmt.Errorf("read dpkg's status: a package without name, version or architecture: %.80q", stanza)
		}
		name, version, ok := strings.Cut(field["Source"], " (")
		if !ok {
			version = p.Version
		}
		if name == "" {
			name = p.Name
		}
		p.Source = name + " " + strings.TrimSuffix(version, ")")
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b DebianPackage) int { return strings.Compare(a.Name+" "+a.Arch, b.Name+" "+b.Arch) })
	return out, nil
}

// fieldsOf reads a stanza, each field's first line.
func fieldsOf(stanza string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(stanza) {
		if key, value, ok := strings.Cut(line, ":"); ok && line[0] != ' ' && line[0] != '\t' {
			out[key] = strings.TrimSpace(value)
		}
	}
	return out
}

// spdxNames are SPDX's names of the licences that Debian's machine-readable
// copyright files call otherwise, or the same.
var spdxNames = map[string]string{
	"apache-2.0": "Apache-2.0", "artistic-2.0": "Artistic-2.0", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause",
	"bsl-1.0": "BSL-1.0", "cc0-1.0": "CC0-1.0", "cc0": "CC0-1.0", "expat": "MIT", "mit": "MIT", "isc": "ISC", "zlib": "Zlib",
	"gpl-1+": "GPL-1.0-or-later", "gpl-2": "GPL-2.0-only", "gpl-2+": "GPL-2.0-or-later", "gpl-3": "GPL-3.0-only", "gpl-3+": "GPL-3.0-or-later",
	"gpl-2.0": "GPL-2.0-only", "gpl-2.0+": "GPL-2.0-or-later", "gpl-3.0": "GPL-3.0-only", "gpl-3.0+": "GPL-3.0-or-later",
	"lgpl-2": "LGPL-2.0-only", "lgpl-2+": "LGPL-2.0-or-later", "lgpl-2.0+": "LGPL-2.0-or-later", "lgpl-2.1": "LGPL-2.1-only",
	"lgpl-2.1+": "LGPL-2.1-or-later", "lgpl-3": "LGPL-3.0-only", "lgpl-3+": "LGPL-3.0-or-later", "lgpl-3.0+": "LGPL-3.0-or-later",
	"mpl-2.0": "MPL-2.0", "psf-2": "PSF-2.0", "python-2.0": "Python-2.0", "unlicense": "Unlicense",
	"gfdl-1.3": "GFDL-1.3-only", "gfdl-1.3+": "GFDL-1.3-or-later",
}

// licenseOf makes one expression of a machine-readable copyright file: all the
// licences of its files. It is empty unless every one of them is understood.
func licenseOf(text []byte) string {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("Format:")) {
		return ""
	}
	found := map[string]bool{}
	for stanza := range strings.SplitSeq(string(text), "\n\n") {
		field := fieldsOf(strings.TrimLeft(stanza, "\n"))
		if _, ok := field["Files"]; !ok {
			continue
		}
		name, ok := spdxNames[strings.ToLower(field["License"])]
		if !ok {
			return ""
		}
		found[name] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(found)), " AND ")
}
