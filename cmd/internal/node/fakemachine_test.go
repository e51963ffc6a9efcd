package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kairos-io/kairos/image/assess/host"
	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/signature/signaturetest"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

// fakeDevices says what the file systems of a fake machine are on.
func fakeDevices(path string) (major, minor uint32, err error) {
	if strings.HasSuffix(path, "/efi") {
		return 254, 1, nil
	}
	return 253, 0, nil
}

// fakeNetwork has the cards of a fake machine, and no gateway that would be asked.
func fakeNetwork(root string) (host.Network, error) {
	n, err := host.Look(root)
	n.Gateways = nil
	return n, err
}

// fakeMachine makes a directory that looks like a machine with slots: see TestScripts.
func fakeMachine(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: fake-machine dir version")
	}
	ts.Check(newMachine(ts.MkAbs(args[0]), args[1]))
}

func newMachine(root, version string) error {
	s := slotstest.New(version, runtime.GOARCH)
	files := map[string]string{
		"dev/vda":                              string(slotstest.Disk()),
		"proc/cmdline":                         "console=ttyS0 roothash=" + s.RootHash + " gpt\n",
		"sys/devices/virtual/dm-0/slaves/vda2": "", "sys/devices/virtual/dm-0/slaves/vda3": "", "sys/class/net/lo/ifindex": "1",
	}
	links := map[string]string{"sys/dev/block/253:0": "../../devices/virtual/dm-0"}
	for i, p := range []string{"vda1", "vda2", "vda3"} {
		files["sys/devices/vda/"+p+"/partition"] = "1"
		links["sys/class/block/"+p] = "../../devices/vda/" + p
		links[fmt.Sprintf("sys/dev/block/254:%d", i+1)] = "../../devices/vda/" + p
	}
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			return err
		}
	}
	for name, to := range links {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(to, path)); err != nil {
			return err
		}
	}
	return flash(root, s)
}

// flash writes a system to slot a.
func flash(root string, s slotstest.System) error {
	disk, esp := slots.Device{Path: filepath.Join(root, "dev/vda")}, slots.Directory(filepath.Join(root, "efi"))
	f, err := slots.ReadFacts(disk, esp, "")
	if err != nil {
		return err
	}
	rel := slots.Release{
		Config: release.Config{Version: s.Version, Arch: s.Arch, Flavour: "generic", RootHash: s.RootHash}, Digest: "sha256:" + strings.Repeat("0", 64),
		Pieces: map[slots.Part]slots.Piece{slots.Root: {Size: int64(len(s.Root))}, slots.Verity: {Size: int64(len(s.Verity))}, slots.Kernel: {Size: int64(len(s.UKI))}},
	}
	p, err := slots.PlanInstall(f, rel)
	if err != nil {
		return err
	}
	return (&slots.Writer{Disk: disk, ESP: esp, Source: flashed(s), Release: rel}).Run(context.Background(), p)
}

// flashed is the content of a system.
type flashed slotstest.System

func (s flashed) Fetch(_ context.Context, p slots.Part, write func(io.Reader) error) error {
	return write(strings.NewReader(string(map[slots.Part][]byte{slots.Root: s.Root, slots.Verity: s.Verity, slots.Kernel: s.UKI}[p])))
}

// makeRelease writes a release into a layout: see TestScripts.
func makeRelease(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: make-release layout version [k3s]")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	draft := upgradetest.New(slotstest.New(args[1], runtime.GOARCH))
	if len(args) == 3 {
		draft.Config["k3s"] = args[2]
	}
	_, err := upgradetest.Layout(dir, args[1], draft)
	ts.Check(err)
}

// signRelease signs it and appends the public key to a file, as YAML in one line.
func signRelease(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: sign-release layout version file")
	}
	public, err := signaturetest.Sign(ts.MkAbs(args[0]), args[1])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[2]), os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = fmt.Fprintf(f, "    verify_key: %q\n", public)
	ts.Check(err)
	ts.Check(f.Close())
}

// serveLayout serves a layout as a registry and sets $REGISTRY to its host.
func serveLayout(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: serve-layout layout")
	}
	s := httptest.NewServer(upgradetest.Registry(ts.MkAbs(args[0])))
	ts.Defer(s.Close)
	ts.Setenv("REGISTRY", strings.TrimPrefix(s.URL, "http://"))
}
