package role

// Plan says what to do next.
func Plan(f Facts) []Action {
	if !f.ClusterEnabled {
		return []Action{Wait{Reason: "cluster.enabled is false: this node is on the network only"}}
	}
	return []Action{RunGenesis{}}
}
