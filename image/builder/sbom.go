package builder

import (
	"bytes"
	"cmp"
	"crypto/sha1" //nolint:gosec // SPDX asks for it; nothing is protected by it
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// SBOMFile is where an image has its bill of materials.
const SBOMFile = "usr/share/sbom/kairos.spdx.json"

// noAssertion says that nothing is known, in SPDX.
const noAssertion = "NOASSERTION"

// Contents is everything that an image is made of.
type Contents struct {
	Title, Version, Revision string
	Arch, Flavour            string
	Time                     time.Time
	Debian                   []DebianPackage
	Programs, Files          []*entry // ours
	Runtime                  []*entry // containerd's programs
	Images                   []fetched
}

// SBOM writes the bill of materials as SPDX 2.3 JSON. It is a function of its
// argument: the document's namespace is made of its content.
func SBOM(c Contents) ([]byte, error) {
	b := &bill{doc: &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: strings.Join(slices.DeleteFunc([]string{c.Title, c.Version, c.Flavour, c.Arch}, func(s string) bool { return s == "" }), " "),
		CreationInfo: &spdx.CreationInfo{Created: c.Time.UTC().Format(time.RFC3339), Creators: []common.Creator{
			{CreatorType: "Organization", Creator: "kairos-io"}, {CreatorType: "Tool", Creator: "github.com/kairos-io/kairos/image"},
		}},
	}}
	b.image(c)
	for _, p := range c.Debian {
		b.relate(imageID, "CONTAINS", b.debian(p))
	}
	for _, e := range c.Files {
		if !e.dir && e.link == "" {
			b.relate(imageID, "CONTAINS", b.file(e))
		}
	}
	for _, e := range slices.Concat(c.Programs, c.Runtime) {
		if err := b.program(e); err != nil {
			return nil, err
		}
	}
	for _, f := range c.Images {
		b.relate(imageID, "CONTAINS", b.bakedImage(f))
	}
	return b.encode()
}

// imageID is the element that contains all others.
const imageID common.ElementID = "Image"

// bill is a document in the making.
type bill struct {
	doc  *spdx.Document
	have map[common.ElementID]bool
}

func (b *bill) encode() ([]byte, error) {
	var text bytes.Buffer
	if err := spdxjson.Write(b.doc, &text); err != nil {
		return nil, fmt.Errorf("write bill of materials: %w", err)
	}
	sum := sha256.Sum256(text.Bytes())
	b.doc.DocumentNamespace = "https://github.com/kairos-io/kairos/spdx/" + hex.EncodeToString(sum[:])
	text.Reset()
	if err := spdxjson.Write(b.doc, &text, spdxjson.Indent(" "), spdxjson.EscapeHTML(false)); err != nil {
		return nil, fmt.Errorf("write bill of materials: %w", err)
	}
	return text.Bytes(), nil
}

func (b *bill) relate(from common.ElementID, how string, to common.ElementID) {
	b.doc.Relationships = append(b.doc.Relationships, &spdx.Relationship{
		RefA: common.DocElementID{ElementRefID: from}, RefB: common.DocElementID{ElementRefID: to}, Relationship: how,
	})
}

// add adds a package unless it is there, filling in what every one has.
func (b *bill) add(p spdx.Package) common.ElementID {
	if b.have[p.PackageSPDXIdentifier] {
		return p.PackageSPDXIdentifier
	}
	if b.have == nil {
		b.have = map[common.ElementID]bool{}
	}
	b.have[p.PackageSPDXIdentifier] = true
	p.PackageDownloadLocation = cmp.Or(p.PackageDownloadLocation, noAssertion)
	p.PackageLicenseDeclared = cmp.Or(p.PackageLicenseDeclared, noAssertion)
	p.PackageLicenseConcluded, p.PackageCopyrightText = noAssertion, noAssertion
	p.IsFilesAnalyzedTagPresent = true
	b.doc.Packages = append(b.doc.Packages, &p)
	return p.PackageSPDXIdentifier
}

func (b *bill) image(c Contents) {
	p := spdx.Package{
		PackageName: c.Title, PackageSPDXIdentifier: imageID, PackageVersion: c.Version, PrimaryPackagePurpose: "CONTAINER",
		PackageSupplier: &common.Supplier{SupplierType: "Organization", Supplier: "kairos-io"}, PackageHomePage: "https://github.com/kairos-io/kairos",
	}
	if c.Debian != nil {
		p.PrimaryPackagePurpose = "OPERATING-SYSTEM"
	}
	if c.Revision != "" {
		p.PackageDownloadLocation = "git+https://github.com/kairos-io/kairos@" + c.Revision
	}
	b.relate("DOCUMENT", "DESCRIBES", b.add(p))
}

func (b *bill) debian(p DebianPackage) common.ElementID {
	return b.add(spdx.Package{
		PackageName: p.Name, PackageSPDXIdentifier: elementID("deb", p.Name, p.Arch), PackageVersion: p.Version,
		PackageSupplier:        &common.Supplier{SupplierType: "Organization", Supplier: "Debian"},
		PackageSourceInfo:      "built from the Debian source package " + p.Source,
		PackageLicenseDeclared: p.License,
		PackageExternalReferences: purl("pkg:deb/debian/" + url.PathEscape(p.Name) + "@" + escapeVersion(p.Version) +
			"?arch=" + p.Arch + "&distro=" + Suite),
	})
}

// file adds one of our own files.
func (b *bill) file(e *entry) common.ElementID {
	one, two := sha1.Sum(e.data), sha256.Sum256(e.data)
	id := elementID("file", e.name)
	b.doc.Files = append(b.doc.Files, &spdx.File{
		FileName: "./" + e.name, FileSPDXIdentifier: id,
		Checksums: []common.Checksum{
			{Algorithm: common.SHA1, Value: hex.EncodeToString(one[:])}, {Algorithm: common.SHA256, Value: hex.EncodeToString(two[:])},
		},
		LicenseConcluded: "Apache-2.0", LicenseInfoInFiles: []string{noAssertion}, FileCopyrightText: noAssertion,
	})
	return id
}

// program adds one of our executables and the Go modules that are linked into it.
func (b *bill) program(e *entry) error {
	info, err := buildinfo.Read(bytes.NewReader(e.data))
	if err != nil {
		return fmt.Errorf("write bill of materials: read the modules of %s: %w", e.name, err)
	}
	file := b.file(e)
	b.relate(imageID, "CONTAINS", file)
	b.relate(file, "STATIC_LINK", b.module("stdlib", strings.TrimPrefix(info.GoVersion, "go"), "BSD-3-Clause"))
	for _, m := range info.Deps {
		m = actual(m)
		b.relate(file, "STATIC_LINK", b.module(m.Path, m.Version, ""))
	}
	return nil
}

// actual is the module that stands in for another one.
func actual(m *debug.Module) *debug.Module {
	for m.Replace != nil {
		m = m.Replace
	}
	return m
}

func (b *bill) module(path, version, license string) common.ElementID {
	return b.add(spdx.Package{
		PackageName: path, PackageSPDXIdentifier: elementID("go", path, version), PackageVersion: version,
		PackageLicenseDeclared: license, PackageExternalReferences: purl("pkg:golang/" + path + "@" + escapeVersion(version)),
	})
}

func (b *bill) bakedImage(f fetched) common.ElementID {
	_, sum, _ := strings.Cut(f.Digest, ":")
	repository, _, _ := strings.Cut(f.Name, "@")
	tag := ""
	if colon := strings.LastIndexByte(repository, ':'); colon > strings.LastIndexByte(repository, '/') {
		repository, tag = repository[:colon], "&tag="+url.QueryEscape(repository[colon+1:])
	}
	return b.add(spdx.Package{
		PackageName: f.Name, PackageSPDXIdentifier: elementID("image", f.Name), PackageVersion: f.Digest, PrimaryPackagePurpose: "CONTAINER",
		PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: sum}},
		PackageComment:   "carried in " + bakedDir + " for machines without a registry; what is in it is not listed here",
		PackageExternalReferences: purl("pkg:oci/" + repository[strings.LastIndexByte(repository, '/')+1:] + "@" + url.QueryEscape(f.Digest) +
			"?repository_url=" + url.QueryEscape(repository) + tag),
	})
}

// elementID makes an identifier of parts: letters, digits, dots and dashes only,
// every other byte written as .XX.
func elementID(parts ...string) common.ElementID {
	var out strings.Builder
	for _, c := range []byte(strings.Join(parts, "-")) {
		if c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, ".%02x", c)
		}
	}
	return common.ElementID(out.String())
}

func purl(s string) []*spdx.PackageExternalReference {
	return []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: s}}
}

// escapeVersion writes a version the way package URLs do.
func escapeVersion(s string) string {
	return strings.NewReplacer("%", "%25", "+", "%2B", ":", "%3A", " ", "%20").Replace(s)
}

// writeSBOM puts a bill beside the layout that it is about.
func writeSBOM(layout string, bills map[string][]byte) error {
	for _, suffix := range slices.Sorted(maps.Keys(bills)) {
		path := filepath.Clean(layout) + suffix + ".spdx.json"
		tmp := path + ".new"
		if err := os.WriteFile(tmp, bills[suffix], 0o644); err != nil {
			return fmt.Errorf("write bill of materials: %w", err)
		}
		if err := os.Rename(tmp, path); err != nil {
			return fmt.Errorf("write bill of materials: %w", err)
		}
	}
	return nil
}
