//go:build race

package storequeue

// The race detector's own memory is not the queue's.
func init() { raceEnabled = true }
