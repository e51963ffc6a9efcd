package cli

import (
	"io"
	"log/slog"
)

// LogFormat is how records look: for a person at a terminal, or for the journal,
// which adds time and program itself.
type LogFormat int

const (
	TextLog LogFormat = iota
	JournalLog
)

// NewLog makes the one logger of a program.
func NewLog(w io.Writer, level string, format LogFormat) (*slog.Logger, error) {
	var l slog.Level
	switch level {
	case "debug", "info", "warn", "error":
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, Usagef("log level: %w", err)
		}
	default:
		return nil, Usagef("log level must be debug, info, warn or error, not %q", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	if format == JournalLog {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}
