package cli

import (
	"io"
	"log/slog"
)

// logFormat is how records look: for a person at a terminal, or for the journal,
// which adds time and program itself.
type logFormat int

const (
	textLog logFormat = iota
	journalLog
)

// newLog makes the one logger of a program.
func newLog(w io.Writer, level string, format logFormat) (*slog.Logger, error) {
	var l slog.Level
	switch level {
	case "debug", "info", "warn", "error":
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, usagef("log level: %w", err)
		}
	default:
		return nil, usagef("log level must be debug, info, warn or error, not %q", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	if format == journalLog {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}
