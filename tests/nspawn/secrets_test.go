package nspawn

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kairos-io/kairos/tests/lab"
)

// testSecrets looks for every secret of the cluster in everything that others
// than its owner may see: command lines, environments, the journal, log files,
// the API, the container's specification, console output. The machines have
// been through their whole life by now.
func (r *rig) testSecrets() {
	secrets := r.secrets()
	if len(secrets) < 6 {
		r.Fatalf("found only %d secrets to look for", len(secrets))
	}
	checked := 0
	check := func(where string, content []byte) {
		checked++
		for _, name := range shown(secrets, content) {
			r.Errorf("%s is in %s", name, where)
		}
	}
	for _, m := range r.Lab.Machines() {
		r.checkProcesses(m, check)
		for _, command := range []string{
			"journalctl --no-pager -o export",
			"find /var/log -type f -not -path '*/journal/*' -exec cat {} +",
			"ctr -n kairos containers info k3s; ctr -n kairos images ls; systemctl show --no-pager 'kairos*'",
			"cat /etc/cni/net.d/*; nft list ruleset",
		} {
			check(m.Name()+": "+command, []byte(r.exec(m.Name(), "sh", "-c", command)))
		}
		r.checkAPI(m, check)
		console, err := os.ReadFile(m.ConsoleFile())
		if err != nil {
			r.Fatal(err)
		}
		check("the console of "+m.Name(), console)
	}
	// Last, as it stays there: the search must be able to find something.
	r.exec(r.server(), "logger", "planted: "+strings.ToLower(secrets[networkToken]))
	r.eventually(time.Minute, "a planted token is found", func() error {
		journal := r.exec(r.server(), "journalctl", "--no-pager", "-o", "export", "-t", "root")
		if !slices.Equal(shown(secrets, []byte(journal)), []string{networkToken}) {
			return fmt.Errorf("not found in %q", journal)
		}
		return nil
	})
	r.Logf("looked for %d secrets in %d places", len(secrets), checked)
}

const networkToken = "the network token"

// shown are the names of the secrets that are in the content, in any case.
func shown(secrets map[string]string, content []byte) []string {
	var names []string
	for name, secret := range secrets {
		if bytes.Contains(bytes.ToUpper(content), bytes.ToUpper([]byte(secret))) {
			names = append(names, name)
		}
	}
	return names
}

// secrets are the network token and, of every machine, its identity key and
// the join tokens of k3s. The values are cut to what cannot be there by chance.
func (r *rig) secrets() map[string]string {
	r.Helper()
	token, err := r.Token()
	if err != nil {
		r.Fatal(err)
	}
	_, body, _ := strings.Cut(token, "-")
	found := map[string]string{networkToken: body}
	for _, m := range r.Lab.Machines() {
		files := r.exec(m.Name(), "sh", "-c", "ls /var/lib/kairos/overlay/identity.key; find /var/lib/rancher/k3s -name '*token*' -type f; ls /etc/rancher/node/password")
		for _, file := range strings.Fields(files) {
			text := r.exec(m.Name(), "cat", file)
			for i, word := range secretWords(text) {
				found[fmt.Sprintf("%s of %s (%d)", file, m.Name(), i)] = word
			}
		}
	}
	return found
}

// secretWords are the long words of a file: base64 or hex lines, and of a k3s
// token (K10<CA hash>::user:password) the password only, as the CA is public.
func secretWords(text string) []string {
	var words []string
	for _, word := range strings.Fields(text) {
		if i := strings.LastIndex(word, ":"); i >= 0 {
			word = word[i+1:]
		}
		if len(word) >= 20 && !strings.HasPrefix(word, "---") {
			words = append(words, word)
		}
	}
	return words
}

func (r *rig) checkProcesses(m *lab.Machine, check func(string, []byte)) {
	pids, err := m.Processes()
	if err != nil {
		r.Fatal(err)
	}
	for _, pid := range pids {
		for _, file := range []string{"cmdline", "environ"} {
			path := filepath.Join("/proc", fmt.Sprint(pid), file)
			// A process that ended meanwhile has nothing to show any more.
			if b, err := os.ReadFile(path); err == nil {
				check(fmt.Sprintf("%s of process %d on %s", file, pid, m.Name()), b)
			}
		}
	}
}

func (r *rig) checkAPI(m *lab.Machine, check func(string, []byte)) {
	for _, path := range []string{"api/v1/status", "api/v1/nodes", "api/v1/peers", "api/v1/cluster", "api/v1/records", "metrics"} {
		text, err := m.Get(r.ctx, "http://127.0.0.1:8080/"+path, "")
		if err != nil {
			r.Fatal(err)
		}
		check(m.Name()+": API "+path, []byte(text))
	}
}
