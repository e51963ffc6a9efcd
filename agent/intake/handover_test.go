package intake

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/config"
)

const (
	notFound = "di_report:\n  datasource_list: [ None ]\n  # reporting not found result. notfound=disabled.\n"
	ec2      = "datasource_list: [ Ec2, None ]\n"
	users    = "#cloud-config\nusers: [{name: ada}]\n"
	onlyOurs = "#cloud-config\nkairos: {role: worker}\n"
)

func handOver(t testing.TB, m Machine) bool {
	t.Helper()
	start, err := m.HandOver()
	if err != nil {
		t.Fatal(err)
	}
	return start
}

func TestKairosBlockAloneLeavesCloudInitAlone(t *testing.T) {
	for _, before := range []string{notFound, ec2} {
		m := newMachine(t, map[string]string{runConfig: before, "oem/a.yaml": onlyOurs})
		if handOver(t, m) || text(t, m, runConfig) != before || text(t, m, "run/kairos/cloud/environment") != "-" {
			t.Error("cloud-init was touched")
		}
	}
}

func TestSeedWithoutDatasource(t *testing.T) {
	m := newMachine(t, map[string]string{
		runConfig: notFound, runResult: "1\n", runDisabled: "",
		"oem/a.yaml":         users,
		"etc/kairos/b.yaml":  goodText(t) + "hostname: 'n-{{ trunc 4 .MachineID }}'\n",
		"oem/not-ours.yaml":  "#!/bin/sh\n",
		"oem/kairos-b.yaml":  onlyOurs,
		"etc/kairos/c.other": "hostname: [",
	})
	if !handOver(t, m) {
		t.Error("cloud-init would not start")
	}
	if got := text(t, m, seedDir+"/user-data"); !strings.HasPrefix(got, "#cloud-config\n") || !strings.Contains(got, "ada") ||
		!strings.Contains(got, "hostname: n-0123\n") || strings.Contains(got, "kairos:") || strings.Contains(got, "KAIROS2-") {
		t.Errorf("user-data:\n%s", got)
	}
	if got := text(t, m, seedDir+"/meta-data"); !strings.Contains(got, "local-hostname: \"n-0123\"\n") {
		t.Errorf("meta-data:\n%s", got)
	}
	for _, f := range []string{"meta-data", "user-data"} {
		if mode(t, m, seedDir+"/"+f) != 0o600 {
			t.Errorf("others may read %s", f)
		}
	}
	want := ownMark + "datasource_list: [ NoCloud, None ]\n" +
		"datasource: {NoCloud: {seedfrom: /run/kairos/cloud/seed/, fs_label: null}}\nnetwork: {config: disabled}\n"
	if got := text(t, m, runConfig); got != want {
		t.Errorf("runtime configuration:\n%s", got)
	}
	if text(t, m, runResult) != "0\n" || text(t, m, runEnabled) != "" || text(t, m, runDisabled) != "-" {
		t.Error("ds-identify's result still says no")
	}
	if !m.Runs() {
		t.Error("cloud-init does not count as part of this boot")
	}
}

func TestSeedConfiguresInterfacesWhenAsked(t *testing.T) {
	m := newMachine(t, map[string]string{runConfig: notFound, "oem/a.yaml": users + "network: {version: 2}\n"})
	handOver(t, m)
	if !strings.HasSuffix(text(t, m, seedDir+"/network-config"), "network: {version: 2}\n") || strings.Contains(text(t, m, runConfig), "disabled") {
		t.Error("the network of the file does not count")
	}
	put(t, m, "oem/a.yaml", users)
	handOver(t, m)
	if text(t, m, seedDir+"/network-config") != "-" {
		t.Error("it stayed")
	}
}

// A name stays one, even where a reader of YAML would take it for another thing.
func TestNamesThatLookLikeSomethingElse(t *testing.T) {
	for _, name := range []string{"0123", "12", "1e3", "on", "no", "true", "null", "0x1f"} {
		m := newMachine(t, map[string]string{runConfig: notFound, "oem/a.yaml": "#cloud-config\nhostname: '" + name + "'\n"})
		handOver(t, m)
		if got := text(t, m, seedDir+"/user-data"); !strings.Contains(got, "hostname: \""+name+"\"\n") {
			t.Errorf("user-data:\n%s", got)
		}
		if got := text(t, m, seedDir+"/meta-data"); !strings.Contains(got, "local-hostname: \""+name+"\"\n") {
			t.Errorf("meta-data:\n%s", got)
		}
	}
}

// The instance is the content: the same applies once, another again, and the
// name that a machine has got meanwhile does not matter.
func TestInstanceFollowsContent(t *testing.T) {
	m := newMachine(t, map[string]string{runConfig: notFound, "oem/a.yaml": users})
	id := func() string {
		handOver(t, m)
		line, _, _ := strings.Cut(text(t, m, seedDir+"/meta-data"), "\n")
		return line
	}
	first := id()
	put(t, m, "etc/hostname", "renamed\n")
	put(t, m, "oem/a.yaml", "#cloud-config\n# a remark\nkairos: {role: worker}\nusers: [{name: ada}]\n")
	if got := id(); got != first {
		t.Errorf("%s became %s", first, got)
	}
	put(t, m, "oem/a.yaml", strings.Replace(users, "ada", "bob", 1))
	if got := id(); got == first || !strings.HasPrefix(got, `instance-id: "kairos-`) {
		t.Errorf("%s stayed", first)
	}
}

func TestLocalFilesOverADatasource(t *testing.T) {
	marks := []string{instanceSem + "/config_users_groups", instanceSem + "/config_runcmd"}
	m := newMachine(t, map[string]string{runConfig: ec2, "oem/a.yaml": users, marks[0]: "", marks[1]: "", earlierFile: "old"})
	if handOver(t, m) {
		t.Error("cloud-init is to be started, and runs anyway")
	}
	if text(t, m, environment) != "CLOUD_CFG=/run/kairos/cloud/over.cfg\n" || !strings.Contains(text(t, m, overFile), "ada") || mode(t, m, overFile) != 0o600 {
		t.Errorf("not laid over: %q, %q", text(t, m, environment), text(t, m, overFile))
	}
	if text(t, m, runConfig) != ec2 || text(t, m, seedDir+"/user-data") != "-" {
		t.Error("the datasource is not asked any more")
	}
	if text(t, m, marks[0]) != "-" || text(t, m, marks[1]) != "-" {
		t.Error("new content would not be applied")
	}
	if text(t, m, earlierFile) != "-" {
		t.Error("what the datasource said earlier still counts beside what it says now")
	}

	put(t, m, marks[0], "")
	handOver(t, m)
	if text(t, m, marks[0]) == "-" {
		t.Error("unchanged content would be applied again")
	}

	if err := os.Remove(m.path("oem/a.yaml")); err != nil {
		t.Fatal(err)
	}
	handOver(t, m)
	if text(t, m, marks[0]) != "-" || text(t, m, appliedFile) != "-" {
		t.Error("what the datasource says instead would not be applied")
	}
	put(t, m, marks[0], "")
	handOver(t, m)
	if text(t, m, marks[0]) == "-" {
		t.Error("a datasource alone is applied at every boot")
	}
	if text(t, m, environment) != "-" || text(t, m, overFile) != "-" {
		t.Error("it stays over the datasource when the files are gone")
	}
}

// A volume that was there at the first boot only: its kairos block counts on,
// though cloud-init has another instance now.
func TestBlockOfADatasourceOutlivesIt(t *testing.T) {
	said := "#cloud-config\nkairos: {network_id: home}\n"
	m := newMachine(t, map[string]string{runConfig: notFound, "oem/a.yaml": users, instanceText: said})
	handOver(t, m)
	if text(t, m, earlierFile) != said || mode(t, m, earlierFile) != 0o600 {
		t.Errorf("kept: %q", text(t, m, earlierFile))
	}
	put(t, m, instanceText, users) // cloud-init has merged our seed
	handOver(t, m)
	if text(t, m, earlierFile) != said {
		t.Error("forgotten at the next boot")
	}
	files, err := config.Sources(m.Root)
	if err != nil || !slices.Contains(files, m.path(earlierFile)) {
		t.Errorf("not read: %v %v", files, err)
	}
}

func TestNothingIsHandedOverOfBadFiles(t *testing.T) {
	m := newMachine(t, map[string]string{runConfig: notFound, "oem/a.yaml": users, "oem/b.yaml": "#cloud-config\nhostname: 'a-{{ x }}'\n"})
	start, err := m.HandOver()
	var problems config.Problems
	if start || !errors.As(err, &problems) || !strings.Contains(err.Error(), "b.yaml:2: hostname: ") {
		t.Errorf("got %v, %v", start, err)
	}
	if text(t, m, runConfig) != notFound || text(t, m, seedDir+"/user-data") != "-" {
		t.Error("something was handed over")
	}
}

// Run again in the same boot, by a restart or after a fetch, it does not take
// its own result for a datasource.
func TestHandOverTwice(t *testing.T) {
	m := newMachine(t, map[string]string{runConfig: notFound, "oem/a.yaml": users})
	handOver(t, m)
	if !handOver(t, m) || text(t, m, environment) != "-" {
		t.Error("its own seed counts as a datasource")
	}
}

func TestNameHost(t *testing.T) {
	template := "#cloud-config\nhostname: 'n-{{ trunc 4 .MachineID }}'\n"
	tests := []struct {
		name        string
		files       map[string]string
		set, static string // "" and "-": left alone
		err         string
	}{
		{"nobody named it", nil, "kairos-0123", "kairos-0123\n", ""},
		{"a container's manager did", map[string]string{"proc/sys/kernel/hostname": "node1\n"}, "", "-", ""},
		{"a file did", map[string]string{"etc/hostname": "mine\n", "proc/sys/kernel/hostname": "mine\n"}, "", "mine\n", ""},
		{"the default, at the second boot", map[string]string{"etc/hostname": "kairos-0123\n", "proc/sys/kernel/hostname": "kairos-0123\n"}, "", "kairos-0123\n", ""},
		{"cloud-init wrote the image's name", map[string]string{"etc/hostname": "kairos\n"}, "kairos-0123", "kairos-0123\n", ""},
		{"a plain name is cloud-init's", map[string]string{"oem/a.yaml": "#cloud-config\nhostname: a.b\n"}, "", "-", ""},
		{"template of a file", map[string]string{"oem/a.yaml": template}, "n-0123", "n-0123\n", ""},
		{"template of a datasource", map[string]string{instanceText: template, "etc/hostname": "n-{{ trunc 4 \n", "proc/sys/kernel/hostname": "n-{{ trunc 4 \n"}, "n-0123", "n-0123\n", ""},
		{"template with a domain", map[string]string{"oem/a.yaml": strings.Replace(template, "}}", "}}.example.org", 1)}, "n-0123", "n-0123\n", ""},
		{"bad template of a datasource", map[string]string{instanceText: strings.Replace(template, "trunc", "cut", 1), "etc/hostname": "n-{{ cut 4 \n"}, "kairos-0123", "kairos-0123\n", `:2: hostname: "n-{{ cut 4 .MachineID }}" is not a template`},
		{"a local file over a datasource", map[string]string{instanceText: "#cloud-config\nhostname: x\n", "oem/a.yaml": template}, "n-0123", "n-0123\n", ""},
		{"no machine ID yet", map[string]string{"etc/machine-id": "uninitialized\n"}, "", "-", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, tt.files)
			told, kernel := "", ""
			told, err := m.NameHost(func(name string) error { kernel = name; return nil })
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if kernel != tt.set || told != tt.set || text(t, m, "etc/hostname") != tt.static {
				t.Errorf("set %q and told %q, file %q; want %q, %q", kernel, told, text(t, m, "etc/hostname"), tt.set, tt.static)
			}
			if tt.set != "" && mode(t, m, "etc/hostname") != 0o644 {
				t.Error("not everybody may read the name")
			}
		})
	}
}
