package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// quick stands in for the Go compiler: one small program, marked with what it is
// said to be.
func quick(_ context.Context, s Source, p Program, arch string) ([]byte, error) {
	data, err := smallProgram()
	return append(bytes.Clone(data), p.Package+" "+s.Version+" "+arch...), err
}

// smallProgram is a real one, so that it knows what modules it is made of.
var smallProgram = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "small-program-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"go.mod": "module example.org/m\ngo 1.21\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", "program", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "program"))
})

// testStatus is what dpkg knows in the base of these tests.
const testStatus = "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:14.2.0-19+b1\nSource: gcc-14 (14.2.0-19)\n\n" +
	"Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n" +
	"Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2.37-2\nDescription: a shell\n Package: not this\n"

var testSource = Source{Version: "v1.2.3", Revision: "abc", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}

func buildOS(t *testing.T, s Source, images ...Baked) (dir, digest string) {
	t.Helper()
	tmp := t.TempDir()
	base := filepath.Join(tmp, "base.tar")
	data := makeTar(t, entryOf("./etc/", tar.TypeDir, ""), entryOf("./etc/hostname", tar.TypeReg, tmp),
		entryOf("./usr/bin/sh", tar.TypeReg, "sh"), entryOf("./var/lib/dpkg/status", tar.TypeReg, testStatus),
		entryOf("./usr/share/doc/bash/copyright", tar.TypeReg, "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-3+\n"),
		file{tar.Header{Name: "./etc/now", ModTime: time.Now()}, ""})
	if err := os.WriteFile(base, data, 0o644); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(tmp, "os")
	got, err := OS(context.Background(), OSOptions{
		Out: dir, Source: s, Compiler: quick, Log: io.Discard, Images: images,
		Base: BaseOptions{Arch: "amd64", CacheDir: filepath.Join(tmp, "cache"), Tar: base, Log: io.Discard},
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir, got.String()
}

// The base differs in what belongs to the building machine only: its name, the time.
func TestOSIsReproducible(t *testing.T) {
	dir, one := buildOS(t, testSource)
	_, two := buildOS(t, testSource)
	if one != two {
		t.Errorf("two builds: %s and %s", one, two)
	}
	if said, err := Digest(dir); err != nil || said != one {
		t.Errorf("digest of the layout: %s, %v, want %s", said, err, one)
	}
	other := testSource
	other.Version = "v1.2.4"
	if _, three := buildOS(t, other); three == one {
		t.Error("another version has the same digest")
	}
}

func TestOSContent(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: files of the OS are root's")
	}
	dir, _ := buildOS(t, testSource)
	out := filepath.Join(t.TempDir(), "root")
	if err := Unpack(UnpackOptions{Layout: dir, Out: out}); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, contains string }{
		{"etc/machine-id", "uninitialized\n"},
		{"usr/bin/kairos", "cmd/kairos v1.2.3 amd64"},
		{"usr/bin/kairos-agent", "cmd/kairos-agent v1.2.3 amd64"},
		{"usr/lib/os-release", "IMAGE_VERSION=v1.2.3\n"},
		{"usr/lib/systemd/system/kairos-overlay.service", "LoadCredential="},
		{"etc/systemd/system/multi-user.target.wants/../../../../usr/lib/systemd/system/kairos.target", "WantedBy=multi-user.target"},
		{"etc/containerd/config.toml", `sandbox = "` + Pause + `"`},
		{"usr/bin/containerd", "/cmd/containerd v1.2.3 amd64"},
		{"usr/bin/containerd-shim-runc-v2", "/cmd/containerd-shim-runc-v2 v1.2.3 amd64"},
		{"etc/systemd/system/multi-user.target.wants/containerd.service", "ExecStart=/usr/bin/containerd\n"},
		{"etc/cloud/ds-identify.cfg", "notfound=disabled"},
		{"etc/ssh/sshd_config.d/10-kairos.conf", "PasswordAuthentication no"},
	}
	for _, tt := range tests {
		data, err := os.ReadFile(filepath.Join(out, tt.path))
		if err != nil || !strings.Contains(string(data), tt.contains) {
			t.Errorf("%s lacks %q: %v", tt.path, tt.contains, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(out, "etc/hostname")); !os.IsNotExist(err) {
		t.Errorf("the building machine's name is in the image: %v", err)
	}
	if oem, err := os.Stat(filepath.Join(out, "oem")); err != nil || oem.Mode().Perm() != 0o700 {
		t.Errorf("oem: %v, %v", oem, err)
	}
}

func TestCLIImage(t *testing.T) {
	var digests []string
	var dir string
	for range 2 {
		dir = filepath.Join(t.TempDir(), "cli")
		h, err := CLIImage(context.Background(), CLIOptions{Out: dir, Archs: []string{"amd64", "arm64"}, Source: testSource, Compiler: quick})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, h.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds: %v", digests)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		m, err := findManifest(layout.Path(dir), arch)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Layers) != 2 || m.Annotations["org.opencontainers.image.version"] != "v1.2.3" {
			t.Errorf("%s: %+v", arch, m)
		}
		cf := configOf(t, dir, m)
		if cf.Architecture != arch || cf.Config.Entrypoint[0] != "/usr/bin/kairos" || cf.Config.Labels["org.opencontainers.image.revision"] != "abc" {
			t.Errorf("%s: %+v", arch, cf)
		}
	}
	if _, err := findManifest(layout.Path(dir), "riscv64"); err == nil {
		t.Error("found an architecture that is not there")
	}
}

func configOf(t *testing.T, dir string, m *v1.Manifest) *v1.ConfigFile {
	t.Helper()
	raw, err := layout.Path(dir).Bytes(m.Config.Digest)
	if err != nil {
		t.Fatal(err)
	}
	cf, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return cf
}

func TestWriteLayoutSparesOtherDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := CLIImage(context.Background(), CLIOptions{Out: dir, Archs: []string{"amd64"}, Source: testSource, Compiler: quick})
	if err == nil || !strings.Contains(err.Error(), "--out") {
		t.Errorf("no helpful error: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "thesis.txt")); err != nil {
		t.Error(err)
	}
}

func TestMissingMmdebstrap(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Base(context.Background(), BaseOptions{Arch: "amd64", CacheDir: t.TempDir(), Log: io.Discard})
	if !errors.Is(err, ErrMissingTool) || !strings.Contains(err.Error(), "apt-get install mmdebstrap") {
		t.Errorf("no helpful error: %v", err)
	}
}

func TestFindSource(t *testing.T) {
	dir := t.TempDir() // no checkout
	tests := []struct {
		name, version, epoch, want string
		time                       time.Time
		wrong                      bool
	}{
		{"nothing known", "", "", "dev", baseEpoch, false},
		{"told", "v9", "1700000000", "v9", time.Unix(1700000000, 0), false},
		{"nonsense", "v9", "yesterday", "", time.Time{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := FindSource(context.Background(), Source{Dir: dir, Version: tt.version}, func(string) string { return tt.epoch })
			if (err != nil) != tt.wrong {
				t.Fatal(err)
			}
			if err == nil && (s.Version != tt.want || !s.Time.Equal(tt.time)) {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// The same source in two places gives the same program, which knows neither.
func TestGoBuildIsReproducible(t *testing.T) {
	var programs [][]byte
	for range 2 {
		dir := t.TempDir()
		for name, text := range map[string]string{"go.mod": "module example.org/m\ngo 1.21\n", "cmd/kairos/main.go": "package main\n\nfunc main() { panic(1) }\n"} {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		data, err := GoBuild(context.Background(), Source{Dir: dir, Version: "v1"}, CLI, runtime.GOARCH)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(dir)) {
			t.Error("the program knows where it was built")
		}
		programs = append(programs, data)
	}
	if !bytes.Equal(programs[0], programs[1]) {
		t.Error("two builds differ")
	}
}
