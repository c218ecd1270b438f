package broker

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"
)

// What a socket costs that says nothing, TLS in front: 8 KiB, so that 2,000 of
// them would take less than 20 MiB. The race detector's stacks are larger.
func TestSilentSocketIsCheap(t *testing.T) {
	const n, most = 300, 14 << 10
	cert, _ := selfSigned(t, "broker")
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	h := open(t, Limits{PreLogin: 2 * n, PreLoginPerIP: 2 * n})
	h.close()
	h.config.Listeners = []Listener{{Address: "127.0.0.1:0", TLS: func() (*tls.Config, error) { return conf, nil }}}
	h.start()
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := used()
	for range n {
		nc, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	for len(h.b.connections()) < n {
		runtime.Gosched()
	}
	each := (used() - before) / n
	t.Logf("%d bytes a socket", each)
	if each > most {
		t.Errorf("a silent socket costs %d bytes, want at most %d", each, most)
	}
}
