package overlay

import "context"

// names is the mesh's name service on this machine.
type names struct{}

func openNames(context.Context, Options, world) (*names, error) { return &names{}, nil }

func (n *names) set(world) error { return nil }

func (n *names) close() error { return nil }
