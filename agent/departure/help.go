package departure

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/kairos-io/kairos/agent/kube"
	"github.com/kairos-io/kairos/overlay/api"
)

// The steps that a leaving node may ask for. Each is one short step that can be repeated.
const (
	Drain  = "drain"  // one round, as disruption budgets allow
	Force  = "force"  // one round, whatever they say
	Stay   = "stay"   // it takes pods again
	Remove = "remove" // delete the node object; its k3s has stopped
)

// Help does one step for caller: it acts on the node object that has the caller's name, if it also has its
// overlay address: a name alone everybody can take.
func Help(ctx context.Context, k kube.API, caller api.Node, step string) (kube.Progress, error) {
	own, found, err := kube.BelongsTo(ctx, k, caller.Name, caller.Addresses)
	switch {
	case err != nil:
		return kube.Progress{}, err
	case !found:
		return kube.Progress{Gone: true}, nil
	case !own:
		return kube.Progress{}, &api.Error{
			Message: fmt.Sprintf("the cluster's node %s is not the machine that asks", caller.Name), Status: http.StatusForbidden,
		}
	}
	switch step {
	case Drain, Force:
		return kube.Drain(ctx, k, caller.Name, step == Force)
	case Stay:
		return kube.Progress{}, kube.Uncordon(ctx, k, caller.Name)
	case Remove:
		return kube.Progress{}, kube.Remove(ctx, k, caller.Name)
	}
	return kube.Progress{}, &api.Error{Message: fmt.Sprintf("this version knows no step %q", step), Status: http.StatusBadRequest}
}

// refusedForGood reports whether asking a server again is of no use.
func refusedForGood(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && (e.Status == http.StatusForbidden || e.Status == http.StatusBadRequest)
}
