package nspawn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/internal/run"
	"github.com/kairos-io/kairos/tests/lab"
	"github.com/kairos-io/kairos/tests/lab/labtest"
)

// toConfigured is how long a machine may take from its start until it has
// applied its configuration and its network runs.
const toConfigured = 3 * time.Minute

const sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIrxvLgmCDDbxPMAMrVDwdmIPTmUEgVoa0JTnO3yMkVq ada@example"

// arrival is a lab of machines that get their configuration in different ways.
type arrival struct {
	*testing.T
	ctx    context.Context
	lab    *lab.Lab
	rootfs string
	kairos string // the kairos block, without Kubernetes
}

func newArrival(t *testing.T) *arrival {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines; not with -short")
	}
	b, err := built()
	if err != nil {
		t.Fatal(err)
	}
	rootfs := b.RootFS
	ctx, l := labtest.New(t, lab.Options{Host: true})
	text, err := run.Out(ctx, filepath.Join(rootfs, "usr/bin/kairos"), "generate-token", "-o", "yaml")
	if err != nil {
		t.Fatal(err)
	}
	a := &arrival{T: t, ctx: ctx, lab: l, rootfs: rootfs, kairos: text + "\n  cluster: {enabled: false}\n"}
	showLogs(t, l, "systemctl list-jobs --no-pager; journalctl -b --no-pager -o short-monotonic -u 'kairos*' -u 'cloud*' | tail -n 60; cat /run/cloud-init/cloud.cfg; cat /run/issue.d/*")
	return a
}

func (a *arrival) boot(c lab.NspawnConfig) *lab.Machine {
	a.Helper()
	c.Image = a.rootfs
	m, err := a.lab.AddNspawn(a.ctx, c)
	if err != nil {
		a.Fatal(err)
	}
	return m
}

// eventually waits until a shell command succeeds in the machine.
func (a *arrival) eventually(m *lab.Machine, what, script string) {
	a.Helper()
	labtest.Eventually(a.T, toConfigured, m.Name()+": "+what, func() error {
		_, err := m.Exec(a.ctx, "sh", "-c", script)
		return err
	})
}

func (a *arrival) exec(m *lab.Machine, script string) string {
	a.Helper()
	out, err := m.Exec(a.ctx, "sh", "-c", script)
	if err != nil {
		a.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// expect compares what commands print.
func (a *arrival) expect(m *lab.Machine, want map[string]string) {
	a.Helper()
	for script, text := range want {
		if got := a.exec(m, script); got != text {
			a.Errorf("%s: %s: got %q, want %q", m.Name(), script, got, text)
		}
	}
}

const overlayIsUp = "test -S /run/kairos/overlay/overlay.sock && kairos status >/dev/null"

// Every way in which a configuration reaches a machine, each on one machine of
// its own; all of them boot at the same time.
func TestConfigurationArrives(t *testing.T) {
	t.Parallel()
	a := newArrival(t)
	text := func(more string) string { return a.kairos + more }
	url := a.serve(text("write_files: [{path: /etc/from-url, content: a}]\n"))
	credential := filepath.Join(a.lab.Dir(), "credential")
	if err := os.WriteFile(credential, []byte(text("runcmd: [touch /var/from-credential]\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	esp := a.boot(lab.NspawnConfig{Name: "esp", Files: []lab.File{{Path: "/efi/config.yaml", Text: text(`
hostname: "n-{{ trunc 4 .MachineID }}"
users: [{name: ada, ssh_authorized_keys: ["` + sshKey + `"]}]
write_files: [{path: /etc/from-esp, content: one, permissions: "0600"}]
runcmd: [touch /var/ran-once, "echo x >>/var/runs"]
`)}}})
	both := a.boot(lab.NspawnConfig{Name: "both", Files: []lab.File{
		{Path: "/var/lib/cloud/seed/nocloud/meta-data", Text: "instance-id: i-1\n"},
		{Path: "/var/lib/cloud/seed/nocloud/user-data", Text: text("hostname: 'd-{{ trunc 6 .MachineID }}'\nusers: [{name: ada}]\nruncmd: [touch /var/from-datasource]\n")},
		{Path: "/oem/50-local.yaml", Text: "#cloud-config\nkairos: {network_id: home}\nusers: [{name: bob}]\n"},
	}})
	fetched := a.boot(lab.NspawnConfig{Name: "url", Arguments: []string{"kairos.config=" + url.at}})
	credentials := a.boot(lab.NspawnConfig{Name: "credential", Credentials: map[string]string{"kairos.config": credential}})
	bare := a.boot(lab.NspawnConfig{Name: "bare", Files: []lab.File{{Path: "/oem/a.yaml", Text: a.kairos}}})
	wrong := a.boot(lab.NspawnConfig{Name: "wrong", Files: []lab.File{{Path: "/efi/config.yaml", Text: "#cloud-config\nkairos:\n  rolle: x\n"}}})

	t.Run("esp", func(t *testing.T) { a.at(t).checkESP(esp) })
	t.Run("over a datasource", func(t *testing.T) { a.at(t).checkBoth(both) })
	t.Run("url", func(t *testing.T) { a.at(t).checkURL(fetched, url) })
	t.Run("credential", func(t *testing.T) {
		a := a.at(t)
		a.eventually(credentials, "the network runs", overlayIsUp)
		a.eventually(credentials, "runcmd ran", "test -e /var/from-credential")
	})
	t.Run("block only", func(t *testing.T) {
		a := a.at(t)
		a.eventually(bare, "the network runs", overlayIsUp)
		a.expect(bare, map[string]string{
			"hostname": "bare", "systemctl is-active cloud-init.target || true": "inactive", "ls /var/lib/cloud/instance 2>/dev/null || true": "",
		})
		a.checkChanges(bare)
	})
	t.Run("wrong", func(t *testing.T) {
		a := a.at(t)
		line := "/efi/config.yaml:3: kairos.rolle: unknown key; did you mean role?"
		a.eventually(wrong, "the console says what is wrong", "grep -qF '"+line+"' /run/issue.d/50-kairos.issue")
		a.expect(wrong, map[string]string{"test -e /efi/config.yaml && echo there": "there", "test -e /oem/80-esp.yaml || echo none": "none"})
		if got := a.exec(wrong, "script -qc 'agetty --show-issue' /dev/null"); !strings.Contains(got, line) {
			t.Errorf("agetty shows:\n%s", got)
		}
	})
}

func (a *arrival) at(t *testing.T) *arrival {
	b := *a
	b.T, b.ctx = t, t.Context()
	return &b
}

func (a *arrival) checkESP(m *lab.Machine) {
	a.eventually(m, "the network runs", overlayIsUp)
	a.eventually(m, "runcmd ran", "test -e /var/ran-once")
	id := a.exec(m, "cat /etc/machine-id")
	a.expect(m, map[string]string{
		"hostname":          "n-" + id[:4],
		"cat /etc/hostname": "n-" + id[:4],
		"kairos status -o json | grep -c '\"name\": \"n-" + id[:4] + "-'": "2", // status and node
		"cat /home/ada/.ssh/authorized_keys":                              sshKey,
		"cat /etc/from-esp; stat -c %a /etc/from-esp":                     "one600",
		"ls /efi":                        "",
		"stat -c %a /oem/80-esp.yaml":    "600",
		"systemctl --failed --no-legend": "",
	})
	a.eventually(m, "the console names it", "grep -q 'machine *n-"+id[:4]+"' /run/issue.d/50-kairos.issue && grep -q 'ssh as ada' /run/issue.d/50-kairos.issue")
	a.noTokenForOthers(m)

	// The same content is applied once, changed content again.
	a.reboot(m)
	a.eventually(m, "the network runs", overlayIsUp)
	a.eventually(m, "cloud-init is done", "test -e /run/cloud-init/result.json")
	a.expect(m, map[string]string{"wc -l </var/runs": "1", "hostname": "n-" + id[:4]})
	a.exec(m, "sed -i s/one/two/ /oem/80-esp.yaml")
	a.reboot(m)
	a.eventually(m, "changed content is applied", "test $(cat /etc/from-esp) = two && test $(wc -l </var/runs) = 2")
}

// checkChanges: a typo takes nothing off the mesh, not at the next boot either, and is
// told; what is right is in force at once.
func (a *arrival) checkChanges(m *lab.Machine) {
	const refused = "kairos status | grep -qF '/oem/b.yaml:3: kairos.rolle: unknown key'"
	a.exec(m, `printf '#cloud-config\nkairos:\n  rolle: x\n' >/oem/b.yaml`)
	a.eventually(m, "the agent tells the typo", refused)
	a.exec(m, "! systemctl restart kairos-config 2>/dev/null")
	a.expect(m, map[string]string{"systemctl is-active kairos-overlay kairos-agent": "active\nactive"})
	a.reboot(m)
	a.eventually(m, "the network runs by the last good configuration", overlayIsUp+" && "+refused)
	a.eventually(m, "its agent too", "systemctl is-active -q kairos-agent")
	a.exec(m, `printf '#cloud-config\nkairos: {overlay: {mtu: 1380}}\n' >/oem/b.yaml`)
	a.eventually(m, "the change is in force", "ip link show kairos0 | grep -q 'mtu 1380 ' && "+overlayIsUp+" && ! "+refused)
}

func (a *arrival) checkBoth(m *lab.Machine) {
	a.eventually(m, "the network runs", overlayIsUp)
	a.eventually(m, "the datasource's runcmd ran", "test -e /var/from-datasource")
	id := a.exec(m, "cat /etc/machine-id")
	a.expect(m, map[string]string{
		"hostname":                           "d-" + id[:6],
		"id ada 2>&1 | grep -c uid= || true": "0", // users of the local file win
		"id bob | grep -c uid=":              "1",
		"grep -c 'network_id: home' /run/kairos/config/kairos.yaml": "1",
	})
	a.noTokenForOthers(m)
	a.exec(m, "sed -i s/bob/eve/ /oem/50-local.yaml")
	a.reboot(m)
	a.eventually(m, "changed content is applied", "id eve")
	// Without the local file the datasource counts alone again.
	a.exec(m, "rm /oem/50-local.yaml")
	a.reboot(m)
	a.eventually(m, "the network runs", overlayIsUp)
	a.expect(m, map[string]string{"grep -c 'network_id: home' /run/kairos/config/kairos.yaml || true": "0"})
}

func (a *arrival) checkURL(m *lab.Machine, w *web) {
	a.eventually(m, "the console says what it waits for", "grep -q 'Waiting for the configuration of http://.*503' /run/issue.d/50-kairos.issue")
	w.open()
	a.eventually(m, "the network runs", overlayIsUp)
	a.eventually(m, "keys of the system are applied", "test -e /etc/from-url")
	a.noTokenForOthers(m)
	w.close()
	a.reboot(m)
	a.eventually(m, "the network runs without the server", overlayIsUp)
}

func (a *arrival) reboot(m *lab.Machine) {
	a.Helper()
	if err := m.Reboot(a.ctx); err != nil {
		a.Fatal(err)
	}
}

// noTokenForOthers looks for the token where another user could read it. The
// lab's own seed is as open as the test made it.
func (a *arrival) noTokenForOthers(m *lab.Machine) {
	a.Helper()
	_, token, _ := strings.Cut(a.kairos, "KAIROS2-")
	token = strings.Trim(strings.Fields(token)[0], `"`)
	found := a.exec(m, fmt.Sprintf("find /run /var /etc /oem /tmp -xdev -type f -perm /044 -not -path '/var/lib/cloud/seed/*' -exec grep -lF %s {} + || true", token))
	for line := range strings.Lines(found) {
		// A file that others may read, below a directory that they may not enter.
		if a.exec(m, "setpriv --reuid=65534 --clear-groups cat "+strings.TrimSpace(line)+" >/dev/null 2>&1 && echo open || true") == "open" {
			a.Errorf("%s: everybody can read the token in %s", m.Name(), strings.TrimSpace(line))
		}
	}
}

// web serves one text to the lab, after it was opened.
type web struct {
	at     string
	text   string
	mu     sync.Mutex
	ready  bool
	server *http.Server
}

func (a *arrival) serve(text string) *web {
	a.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(a.lab.HostAddr().String(), "0"))
	if err != nil {
		a.Fatal(err)
	}
	w := &web{at: "http://" + l.Addr().String() + "/config.yaml", text: text}
	w.server = &http.Server{Handler: w, ReadHeaderTimeout: time.Minute}
	go func() {
		if err := w.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.Error(err)
		}
	}()
	a.Cleanup(w.close)
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, _ *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ready {
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	_, _ = rw.Write([]byte(w.text))
}

func (w *web) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = true
}

func (w *web) close() { _ = w.server.Close() }
