package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// monitor speaks QEMU's machine protocol (QMP) over a connection that QEMU made.
type monitor struct {
	conn net.Conn
	in   *json.Decoder
	out  *json.Encoder
}

// newMonitor reads QEMU's greeting and makes it ready for commands.
func newMonitor(ctx context.Context, conn net.Conn) (*monitor, error) {
	m := &monitor{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
	return m, m.do(ctx, "qmp_capabilities", nil)
}

// do runs one command; arguments may be nil.
func (m *monitor) do(ctx context.Context, command string, arguments any) error {
	deadline, _ := ctx.Deadline() // the zero time stands for none, here as there
	if err := m.conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("ask QEMU for %s: %w", command, err)
	}
	defer context.AfterFunc(ctx, func() { _ = m.conn.SetDeadline(time.Now()) })()
	err := m.out.Encode(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err == nil {
		err = m.answer()
	}
	if err != nil {
		return fmt.Errorf("ask QEMU for %s: %w", command, err)
	}
	return nil
}

// answer reads on to the answer; greeting and events in between are not of interest.
func (m *monitor) answer() error {
	for {
		var r struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Description string `json:"desc"`
			} `json:"error"`
		}
		if err := m.in.Decode(&r); err != nil {
			return err
		}
		if r.Error != nil {
			return errors.New(r.Error.Description)
		}
		if r.Return != nil {
			return nil
		}
	}
}
