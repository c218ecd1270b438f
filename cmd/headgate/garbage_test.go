package main

import (
	"runtime"
	"testing"
)

func TestGarbagePercent(t *testing.T) {
	for _, tt := range []struct {
		lives uint64 // MiB
		want  int
	}{{0, mostPercent}, {16, mostPercent}, {32, 200}, {64, 100}, {128, 50}, {1024, leastPercent}} {
		if got := garbagePercent(tt.lives << 20); got != tt.want {
			t.Errorf("%d MiB live: %d %%, want %d", tt.lives, got, tt.want)
		}
	}
}

func TestLivesSeesTheHeap(t *testing.T) {
	held := make([]byte, 32<<20)
	runtime.GC()
	if got := lives(); got < 32<<20 || got > 256<<20 {
		t.Errorf("%d bytes live while 32 MiB are held", got)
	}
	runtime.KeepAlive(held)
}
