package builder

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	spdxjson "github.com/spdx/tools-golang/json"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
)

// readBill parses and validates a bill of materials the way its users do, and
// checks what SPDX 2.3 demands and the library does not look at.
func readBill(t *testing.T, raw []byte) *spdx.Document {
	t.Helper()
	doc, err := spdxjson.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)
	seen := map[string]bool{}
	see := func(s string) {
		if !id.MatchString(s) || seen[s] {
			t.Errorf("identifier %q: not well formed, or twice", s)
		}
		seen[s] = true
	}
	for _, p := range doc.Packages {
		see(string(p.PackageSPDXIdentifier))
		if p.PackageName == "" || p.PackageDownloadLocation == "" || p.PackageLicenseDeclared == "" || p.FilesAnalyzed {
			t.Errorf("package %s lacks something: %+v", p.PackageName, p)
		}
	}
	for _, f := range doc.Files {
		see(string(f.FileSPDXIdentifier))
		if !strings.HasPrefix(f.FileName, "./") || len(f.Checksums) != 2 || f.Checksums[0].Algorithm != "SHA1" {
			t.Errorf("file %s: %+v", f.FileName, f.Checksums)
		}
	}
	if doc.SPDXVersion != "SPDX-2.3" || doc.DataLicense != "CC0-1.0" || !strings.HasPrefix(doc.DocumentNamespace, "https://") ||
		strings.Contains(doc.DocumentNamespace, "#") || doc.CreationInfo.Created != "2026-01-02T03:04:05Z" {
		t.Errorf("head: %s %s %s %s", doc.SPDXVersion, doc.DataLicense, doc.DocumentNamespace, doc.CreationInfo.Created)
	}
	return doc
}

// purls are the package URLs in a bill, with the licence of each.
func purls(doc *spdx.Document) map[string]string {
	out := map[string]string{}
	for _, p := range doc.Packages {
		for _, r := range p.PackageExternalReferences {
			out[r.Locator] = p.PackageLicenseDeclared
		}
	}
	return out
}

func TestSBOM(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: files of the OS are root's")
	}
	host := registryWith(t, map[string]remote.Taggable{"app:1": carried(t, "amd64", nil)})
	dir, _ := buildOS(t, testSource, parseBaked(t, "r.example/app:1="+host+"/app:1")...)
	out := filepath.Join(t.TempDir(), "root")
	if err := Unpack(UnpackOptions{Layout: dir, Out: out}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(out, SBOMFile))
	if err != nil {
		t.Fatal(err)
	}
	if beside, err := os.ReadFile(dir + ".spdx.json"); err != nil || !bytes.Equal(raw, beside) {
		t.Errorf("the one beside the image is another one: %v", err)
	}
	doc := readBill(t, raw)
	have := purls(doc)
	for _, want := range []struct{ purl, license string }{
		{"pkg:deb/debian/bash@5.2.37-2?arch=amd64&distro=trixie", "GPL-3.0-or-later"},
		{"pkg:deb/debian/libstdc++6@1%3A14.2.0-19%2Bb1?arch=amd64&distro=trixie", noAssertion},
		{"pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go"), "BSD-3-Clause"},
	} {
		if got, ok := have[want.purl]; !ok || got != want.license {
			t.Errorf("%s: licence %q, there: %v", want.purl, got, ok)
		}
	}
	text := string(raw)
	for _, want := range []string{"built from the Debian source package gcc-14 14.2.0-19", "./usr/bin/kairos-agent", "./usr/lib/systemd/system/kairos-agent.service",
		`"r.example/app:1"`, "pkg:oci/app@sha256%3A", "&tag=1", "git+https://github.com/kairos-io/kairos@abc"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q", want)
		}
	}
	if strings.Contains(text, `"gone"`) {
		t.Error("a package that was removed is listed")
	}
	// The checksum of a program is that of the program.
	program, err := os.ReadFile(filepath.Join(out, CLI.Path))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(program); !strings.Contains(text, hex.EncodeToString(sum[:])) {
		t.Error("the checksum of kairos is another one")
	}
}

// The bill is a function of what it is about, and another one has another namespace.
func TestSBOMIsDeterministic(t *testing.T) {
	program, err := smallProgram()
	if err != nil {
		t.Fatal(err)
	}
	c := Contents{Title: "t", Version: "v1", Time: testSource.Time, Arch: "amd64",
		Debian:   []DebianPackage{{Name: "a", Version: "1", Arch: "all"}},
		Programs: []*entry{{name: "usr/bin/a", data: program}, {name: "usr/bin/b", data: program}}}
	one, err := SBOM(c)
	if err != nil {
		t.Fatal(err)
	}
	two, err := SBOM(c)
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("two bills: %v", err)
	}
	readBill(t, one)
	c.Debian[0].Version = "2"
	three, err := SBOM(c)
	if err != nil || readBill(t, three).DocumentNamespace == readBill(t, one).DocumentNamespace {
		t.Errorf("another package, the same namespace: %v", err)
	}
	c.Programs = []*entry{{name: "usr/bin/a", data: []byte("#!/bin/sh")}}
	if _, err := SBOM(c); err == nil {
		t.Error("a program of unknown modules was passed over")
	}
}

func TestLicenseOf(t *testing.T) {
	const head = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n\n"
	for _, tc := range []struct{ name, text, want string }{
		{"one", head + "Files: *\nCopyright: 2020\nLicense: GPL-2+\n\nLicense: GPL-2+\n text\n", "GPL-2.0-or-later"},
		{"several, sorted", head + "Files: *\nLicense: GPL-2+\n\nFiles: debian/*\nLicense: Expat\n", "GPL-2.0-or-later AND MIT"},
		{"one of them unknown", head + "Files: *\nLicense: GPL-2+\n\nFiles: x\nLicense: Beerware-ish\n", ""},
		{"no machine can read it", "This is free software, License: GPL-2+\n", ""},
		{"empty", "", ""},
	} {
		if got := licenseOf([]byte(tc.text)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestParseStatusRefusesWhatItCannotName(t *testing.T) {
	if _, err := parseStatus([]byte("Package: x\nStatus: install ok installed\nVersion: 1\n"), nil); err == nil {
		t.Error("a package without an architecture was taken")
	}
}

// The identifiers of packages that differ differ.
func TestElementID(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []string{"a+b", "a.b", "a-b", "a_b", "a2bb", "a.2bb", "ä"} {
		id := string(elementID(s))
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q are both %s", s, other, id)
		}
		seen[id] = s
	}
	if raw, err := json.Marshal(elementID("libstdc++6")); err != nil || string(raw) != `"SPDXRef-libstdc.2b.2b6"` {
		t.Errorf("%s, %v", raw, err)
	}
}
