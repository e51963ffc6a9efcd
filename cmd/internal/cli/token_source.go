package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/overlay/token"
)

// tokenEnv is the environment variable that may hold the token.
const tokenEnv = "NETWORK_TOKEN"

// maxTokenFile bounds what is read of a token file, in bytes.
const maxTokenFile = 64 << 10

// tokenSource is where a command gets the network token from: a flag, a file
// or the environment, in this order. It is read once, before anything starts.
type tokenSource struct {
	flag, file string
}

func (s *tokenSource) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.flag, "network-token", "", "the network token; visible to other users of this machine while the command runs")
	cmd.Flags().StringVar(&s.file, "network-token-file", "", "file with the network token; - reads standard input")
	cmd.MarkFlagsMutuallyExclusive("network-token", "network-token-file")
}

// read returns the token. The variable is removed from the environment at
// once, so that no child inherits it; the argument cannot be hidden, because Go
// has no access to the kernel's copy, so its user is told of the better way.
func (s *tokenSource) read(env *Env, cmd *cobra.Command) (token.Token, error) {
	fromEnv, inEnv := os.LookupEnv(tokenEnv)
	if err := os.Unsetenv(tokenEnv); err != nil {
		return token.Token{}, fmt.Errorf("remove $%s: %w", tokenEnv, err)
	}
	var text, from string
	switch {
	case cmd.Flags().Changed("network-token"):
		text, from = s.flag, "--network-token"
		env.Say("the token on the command line is visible to other users of this machine; --network-token-file FILE is not")
	case cmd.Flags().Changed("network-token-file"):
		b, err := s.readFile(env.Stdin)
		if err != nil {
			return token.Token{}, err
		}
		text, from = string(b), "--network-token-file"
	case inEnv:
		text, from = fromEnv, "$"+tokenEnv
	default:
		return token.Token{}, WithHint(Usagef("no network token"),
			"give it by --network-token-file FILE, --network-token TOKEN or $%s; it is in the config.yaml of your machines", tokenEnv)
	}
	t, err := token.Parse(text)
	if err != nil {
		// The error never quotes the text.
		return token.Token{}, Usagef("%s: %w", from, err)
	}
	return t, nil
}

func (s *tokenSource) readFile(stdin io.Reader) ([]byte, error) {
	in := stdin
	if s.file != "-" {
		f, err := os.Open(s.file)
		if err != nil {
			err = Usagef("--network-token-file: %w", err)
			if errors.Is(err, fs.ErrPermission) {
				return nil, WithHint(err, "run the command as a user who may read the file, or with sudo")
			}
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxTokenFile))
	if err != nil {
		return nil, Usagef("--network-token-file: %w", err)
	}
	return b, nil
}
