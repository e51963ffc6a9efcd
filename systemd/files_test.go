package systemd

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestLinks(t *testing.T) {
	links, err := Links()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"etc/systemd/system/kairos.target.wants/kairos-agent.service":                "/usr/lib/systemd/system/kairos-agent.service",
		"etc/systemd/system/kairos.target.wants/kairos-config.service":               "/usr/lib/systemd/system/kairos-config.service",
		"etc/systemd/system/kairos.target.wants/kairos-overlay.service":              "/usr/lib/systemd/system/kairos-overlay.service",
		"etc/systemd/system/kairos.target.wants/kairos-overlay-config.path":          "/usr/lib/systemd/system/kairos-overlay-config.path",
		"etc/systemd/system/kairos.target.wants/kairos-fetch.service":                "/usr/lib/systemd/system/kairos-fetch.service",
		"etc/systemd/system/kairos.target.wants/kairos-hostname.service":             "/usr/lib/systemd/system/kairos-hostname.service",
		"etc/systemd/system/multi-user.target.wants/containerd.service":              "/usr/lib/systemd/system/containerd.service",
		"etc/systemd/system/multi-user.target.wants/kairos-console.service":          "/usr/lib/systemd/system/kairos-console.service",
		"etc/systemd/system/multi-user.target.wants/kairos-installer.service":        "/usr/lib/systemd/system/kairos-installer.service",
		"etc/systemd/system/multi-user.target.wants/kairos.target":                   "/usr/lib/systemd/system/kairos.target",
		"etc/systemd/system/sysinit.target.wants/kairos-intake.service":              "/usr/lib/systemd/system/kairos-intake.service",
		"etc/systemd/system/kairos.target.wants/kairos-boot-check.service":           "/usr/lib/systemd/system/kairos-boot-check.service",
		"etc/systemd/system/boot-complete.target.requires/kairos-boot-check.service": "/usr/lib/systemd/system/kairos-boot-check.service",
	}
	for _, l := range links {
		if want[l.Path] != l.Target {
			t.Errorf("unexpected link %s -> %s", l.Path, l.Target)
		}
		delete(want, l.Path)
	}
	for p := range want {
		t.Errorf("no link %s", p)
	}
}

// tool finds systemd's own checker. It is not skipped quietly: a unit that
// nobody checked fails on somebody's machine.
func tool(t *testing.T) string {
	t.Helper()
	p, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing: install systemd")
	}
	return p
}

// install writes the tree below a temporary root, with programs that the units
// start as empty executables.
func install(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, Files()); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "usr/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"kairos-agent", "systemctl"} {
		if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var ours = []string{IntakeUnit, FetchUnit, HostnameUnit, ConfigUnit, OverlayUnit, ReloadPath, ReloadUnit, AgentUnit, BootCheckUnit, BootFailedUnit, ConsoleUnit, InstallerUnit, Target}

func TestUnitsParse(t *testing.T) {
	analyze, dir := tool(t), install(t)
	for _, unit := range ours {
		t.Run(unit, func(t *testing.T) {
			cmd := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", "--root="+dir, unit)
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), unit+":") {
				t.Errorf("verify: %v\n%s", err, out)
			}
		})
	}
}

// systemd settles conflicts when it plans a boot and looks at conditions when it starts
// a unit: what may be skipped must not have kept a login off the screen.
func TestNoConditionalUnitKeepsAGettyAway(t *testing.T) {
	err := fs.WalkDir(Files(), unitDir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(Files(), name)
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), "\nCondition") {
			return nil
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Conflicts=") && strings.Contains(line, "getty") {
				t.Errorf("%s has a condition and %q", name, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What starts services comes before basic.target by default, and so before all services:
// one that waits for a service would be a cycle, which systemd breaks by leaving out some
// unit of it.
func TestNoTriggerWaitsForAService(t *testing.T) {
	for _, kind := range []string{"path", "socket", "timer"} {
		names, err := fs.Glob(Files(), unitDir+"/*."+kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := fs.ReadFile(Files(), name)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "After=") && strings.Contains(line, ".service") && !strings.Contains(string(text), "\nDefaultDependencies=no\n") {
					t.Errorf("%s has default dependencies and %q", name, strings.TrimSpace(line))
				}
			}
		}
	}
}

// A login is started on a serial line only if its settings can be read, which is what
// tells a port that is not there.
func TestNoLoginWithoutASerialPort(t *testing.T) {
	text, err := fs.ReadFile(Files(), unitDir+"/serial-getty@.service.d/50-kairos.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, script, found := strings.Cut(string(text), "\nExecCondition=/bin/sh -c '")
	script, _, closed := strings.Cut(script, "'\n")
	if !found || !closed {
		t.Fatalf("there is no condition:\n%s", text)
	}
	for device, there := range map[string]bool{"/dev/ptmx": true, "/dev/null": false, "/dev/none": false} {
		err := exec.Command("/bin/sh", "-c", strings.ReplaceAll(script, "/dev/%I", device)).Run()
		if (err == nil) != there {
			t.Errorf("%s: %v", device, err)
		}
	}
}

var exposure = regexp.MustCompile(`Overall exposure level for (\S+): ([0-9.]+)`)

// The numbers are systemd's: 0.0 is a unit that can do nothing, 10.0 one that
// can do anything.
func TestExposure(t *testing.T) {
	analyze, dir := tool(t), install(t)
	tests := []struct {
		unit      string
		threshold string // tenths
	}{
		{IntakeUnit, "25"},
		{FetchUnit, "25"},
		{HostnameUnit, "25"},
		{ConsoleUnit, "25"},
		{ConfigUnit, "15"},
		{ReloadUnit, "15"},
		{OverlayUnit, "20"},
		{AgentUnit, "25"},
		{BootCheckUnit, "20"},
	}
	for _, tt := range tests {
		t.Run(tt.unit, func(t *testing.T) {
			unit := filepath.Join(dir, unitDir, tt.unit)
			out, err := exec.Command(analyze, "security", "--no-pager", "--offline=true", "--threshold="+tt.threshold, unit).CombinedOutput()
			m := exposure.FindStringSubmatch(string(out))
			if m == nil {
				t.Fatalf("no verdict (%v):\n%s", err, out)
			}
			t.Logf("RESULT exposure unit=%s value=%s", m[1], m[2])
			if err != nil {
				t.Errorf("exposure %s is over %s tenths: %v", m[2], tt.threshold, err)
			}
		})
	}
}

// What ARCHITECTURE.md promises of the units, beyond what systemd can judge.
func TestUnitsKeepTheirPromises(t *testing.T) {
	tests := []struct {
		name, unit string
		want       []string
		never      []string
	}{
		{
			"the network gets its part of the configuration as a credential", OverlayUnit,
			[]string{"LoadCredential=overlay.yaml:/run/kairos/config/overlay.yaml", "User=" + User, "CapabilityBoundingSet=CAP_NET_ADMIN\n", "Type=notify", "WatchdogSec="},
			[]string{"network-online.target\n", "Environment="},
		},
		{
			"stopping the agent stops no workload", AgentUnit,
			[]string{"KillMode=process", "Type=notify", "WatchdogSec=", "Restart=always"},
			[]string{"\nRequires=containerd.service", "\nBindsTo=", "\nPartOf=", "Environment="},
		},
		{
			"no unit that is judged can keep the judge from its verdict", BootCheckUnit,
			[]string{"DefaultDependencies=no", "RequiredBy=boot-complete.target", "Before=boot-complete.target", "IgnoreOnIsolate=yes", "OnFailure=" + BootFailedUnit},
			[]string{"=journal+console", "\nAfter=", "\nRequires=", "\nWants="},
		},
		{
			"only a boot on trial is given up, and without any program of ours", BootFailedUnit,
			[]string{"\nConditionPathExists=/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f\n",
				"\nConditionPathExists=!/run/kairos/boot-good\n", "\nSuccessAction=reboot\n", "\nFailureAction=reboot\n", "\nExecStart=-/bin/sh ", "\nConflicts=shutdown.target\n"},
			[]string{"[Install]", "\nAfter=", "\nRequires="},
		},
		{
			"a refused configuration takes no node off the mesh", OverlayUnit,
			[]string{"\nWants=" + ConfigUnit, "\nAfter=" + ConfigUnit, "\nConditionPathExists=/run/kairos/config/overlay.yaml\n"},
			[]string{"\nRequires=", "\nBindsTo=", "\nPartOf="},
		},
		{
			"nor its agent away from k3s", AgentUnit,
			[]string{"\nWants=" + ConfigUnit, "\nAfter=" + ConfigUnit, "\nConditionPathExists=/run/kairos/config/kairos.yaml\n"},
			[]string{"\nRequires="},
		},
		{
			"the last good configuration is kept where root alone looks", ConfigUnit,
			[]string{"\nStateDirectory=kairos/last-good\nStateDirectoryMode=0700\n", "\nUMask=0077\n"},
			nil,
		},
		{
			"a changed configuration reaches a network that runs", ReloadPath,
			[]string{"\nPathChanged=/run/kairos/config/overlay.yaml\n", "\nAfter=" + ConfigUnit},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text, err := fs.ReadFile(Files(), unitDir+"/"+tt.unit)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range tt.want {
				if !strings.Contains(string(text), s) {
					t.Errorf("%s lacks %q", tt.unit, s)
				}
			}
			for _, s := range tt.never {
				for line := range strings.Lines(string(text)) {
					if !strings.HasPrefix(line, "#") && strings.Contains("\n"+line, s) {
						t.Errorf("%s has %q", tt.unit, line)
					}
				}
			}
		})
	}
}

// The account's name stands in files that systemd and polkit read themselves.
func TestUserIsTheSameEverywhere(t *testing.T) {
	tests := []struct{ path, want string }{
		{"usr/lib/sysusers.d/kairos.conf", "\nu " + User + " "},
		{unitDir + "/" + OverlayUnit, "\nUser=" + User + "\n"},
		{"usr/share/polkit-1/rules.d/50-kairos.rules", `subject.user === "` + User + `"`},
	}
	for _, tt := range tests {
		text, err := fs.ReadFile(Files(), tt.path)
		if err != nil || !strings.Contains(string(text), tt.want) {
			t.Errorf("%s lacks %q: %v", tt.path, tt.want, err)
		}
	}
}
