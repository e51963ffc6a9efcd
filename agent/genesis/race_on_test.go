//go:build race

package genesis

// raceEnabled: the simulation has no goroutines, and is ten times slower then.
const raceEnabled = true
