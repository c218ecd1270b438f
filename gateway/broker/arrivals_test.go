package broker

import (
	"testing"
	"testing/synctest"
)

func TestArrivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a arrivals
		a.wait(nil) // for nobody
		first, second := a.depart(), a.depart()
		waiting, stop := make(chan struct{}), make(chan struct{})
		go func() {
			a.wait(stop)
			close(waiting)
		}()
		synctest.Wait()
		later := a.depart()
		over := func() bool {
			synctest.Wait()
			select {
			case <-waiting:
				return true
			default:
				return false
			}
		}
		for _, n := range []uint64{later, second} {
			if a.arrive(n); over() {
				t.Errorf("over after %d of 1 and 2", n)
			}
		}
		if a.arrive(first); !over() {
			t.Error("waits for who comes later")
		}
		a.depart()
		close(stop)
		a.wait(stop)
		if len(a.out) != 1 {
			t.Errorf("%d are remembered, want 1", len(a.out))
		}
	})
}
