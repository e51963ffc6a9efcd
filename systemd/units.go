package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// Unit is one unit as the service manager has it now.
type Unit struct {
	Name     string
	Active   string // ActiveState: active, activating, inactive, failed, ...
	Sub      string // SubState, such as running or auto-restart
	Result   string // how a service last ended: success, exit-code, signal, ...
	Restarts int    // how often a service was restarted by itself
}

// Units asks systemctl about units, loaded or not, and returns them in the order
// of names. It works without a message bus, as long as systemd itself answers.
func Units(ctx context.Context, names ...string) ([]Unit, error) {
	args := append([]string{"show", "--property=Id,ActiveState,SubState,Result,NRestarts"}, names...)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask systemd about its units: %w: %s", err, oneLine(stderr.String()))
	}
	units, err := parseUnits(string(out))
	if err == nil && len(units) != len(names) {
		err = fmt.Errorf("%d units instead of %d", len(units), len(names))
	}
	if err != nil {
		return nil, fmt.Errorf("read systemctl's answer: %w", err)
	}
	// An alias has another Id, and the order is that of the question.
	for i, n := range names {
		units[i].Name = n
	}
	return units, nil
}

// parseUnits reads blocks of KEY=VALUE lines with an empty line between two.
func parseUnits(text string) ([]Unit, error) {
	var out []Unit
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var u Unit
		var err error
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
			switch key {
			case "Id":
				u.Name = value
			case "ActiveState":
				u.Active = value
			case "SubState":
				u.Sub = value
			case "Result":
				u.Result = value
			case "NRestarts":
				u.Restarts, err = strconv.Atoi(value)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", oneLine(line), err)
			}
		}
		if u.Name == "" || u.Active == "" {
			return nil, errors.New("a unit without a name or a state")
		}
		out = append(out, u)
	}
	return slices.Clip(out), nil
}

// Reboot asks systemd to restart the machine, and returns when it has agreed to.
func Reboot(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "systemctl", "reboot").CombinedOutput()
	if err != nil {
		return fmt.Errorf("reboot: %w: %s", err, oneLine(string(out)))
	}
	return nil
}
