package k3s

import (
	"context"
	"errors"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// EndPods kills the sandboxes with these container IDs; the kubelet sees that and starts
// their pods anew. One that has ended already is no error, and is not counted.
func (r *Runtime) EndPods(ctx context.Context, sandboxes []string) (ended int, err error) {
	ctx = namespaces.WithNamespace(ctx, podNamespace)
	var errs []error
	for _, id := range sandboxes {
		switch err := r.endPod(ctx, id); {
		case err == nil:
			ended++
		case !errdefs.IsNotFound(err):
			errs = append(errs, explain("end pod sandbox "+id, err))
		}
	}
	return ended, errors.Join(errs...)
}

func (r *Runtime) endPod(ctx context.Context, id string) error {
	c, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return err
	}
	t, err := c.Task(ctx, nil)
	if err != nil {
		return err
	}
	return t.Kill(ctx, syscall.SIGKILL)
}
