package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kairos-io/kairos/agent/kubeconfig"
	"github.com/kairos-io/kairos/overlay/api"
)

// kubeconfigTimeout bounds the whole request: the local daemon asks a server over the overlay.
const kubeconfigTimeout = 45 * time.Second

// abstractEnv is set in the container image, where a bridge shares no directory
// with the container in which the next command runs: both go by an abstract socket.
const abstractEnv = "KAIROS_ABSTRACT_SOCKET"

func newGetKubeconfig(env *Env) *cobra.Command {
	var networkID, socket string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "get-kubeconfig",
		Short: "Print a kubeconfig of the cluster on this network",
		Long: `Print a kubeconfig of the cluster on the network that this machine is part of, by
a running bridge or by its node. It holds a client certificate made for the
asker, which expires.`,
		Example: "  kairos get-kubeconfig > kubeconfig\n  kubectl --kubeconfig kubeconfig get nodes",
	}
	cmd.Flags().StringVar(&networkID, "network-id", "", "the cluster's network_id (default: that of the bridge or node)")
	cmd.Flags().DurationVar(&ttl, "ttl", kubeconfig.DefaultTTL, "how long the credentials are good for")
	cmd.Flags().StringVar(&socket, "socket", "", "control socket to ask (default: the node's agent, then the overlay or bridge)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if ttl < kubeconfig.MinTTL || ttl > kubeconfig.MaxTTL {
			return Usagef("ttl must be from %s to %s, not %s", kubeconfig.MinTTL, kubeconfig.MaxTTL, ttl)
		}
		if cmd.Flags().Changed("network-id") {
			if err := checkNetworkID(networkID); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), kubeconfigTimeout)
		defer cancel()
		sockets := []string{AgentSocket, OverlaySocket}
		if os.Getenv(abstractEnv) != "" {
			// Only where a bridge may be in another container: root in any container with
			// the host's network could take the name, and a kubeconfig can name a program
			// that kubectl runs.
			sockets = append(sockets, api.Abstract(OverlaySocket))
		}
		if socket != "" {
			sockets = []string{socket}
		}
		text, err := askKubeconfig(ctx, sockets, kubeconfig.Request{NetworkID: networkID, TTLSeconds: int64(ttl / time.Second)})
		if err != nil {
			return explainSocket(err)
		}
		env.Result().WriteString(text)
		return nil
	}
	return cmd
}

// askKubeconfig asks the first socket that somebody serves. Of two that do not
// answer, the one that exists but is another user's is the one to tell about.
func askKubeconfig(ctx context.Context, sockets []string, req kubeconfig.Request) (string, error) {
	var failed error
	for _, path := range sockets {
		c := api.NewClient(path)
		var out kubeconfig.Answer
		err := c.Call(ctx, api.Exchange{Method: http.MethodPost, Path: "/control/v1/kubeconfig", In: req, Out: &out})
		c.CloseIdle()
		switch {
		case err == nil && out.Kubeconfig == "":
			return "", fmt.Errorf("the answer of %s holds no kubeconfig", path)
		case err == nil:
			return out.Kubeconfig, nil
		case !Unreachable(err):
			return "", noKubeconfigHere(err)
		case failed == nil || errors.Is(err, api.ErrForbidden):
			failed = err
		}
	}
	return "", failed
}

// noKubeconfigHere explains an overlay without an agent behind it: its socket has no such handler.
func noKubeconfigHere(err error) error {
	var e *api.Error
	if errors.As(err, &e) && e.Status == http.StatusNotFound && e.Hint == api.HintNoPath {
		return WithHint(errors.New("the overlay here has no cluster agent beside it"), "see `systemctl status kairos-agent`")
	}
	return err
}

// checkNetworkID refuses what no machine's configuration can hold: a network_id is a DNS label.
func checkNetworkID(s string) error {
	ok := len(s) > 0 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	if !ok {
		return Usagef("--network-id: %q is not 1 to 63 of a-z, 0-9 and -, not at the ends", s)
	}
	return nil
}
