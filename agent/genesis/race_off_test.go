//go:build !race

package genesis

const raceEnabled = false
