package broker

import (
	"net"
	"syscall"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A client without keep alive whose machine went away must not be waited for.
func TestHalfOpenConnectionsEnd(t *testing.T) {
	h := open(t, Limits{})
	h.login(mqtt.V311, "alice", "a")
	for _, c := range h.b.connections() {
		raw, err := c.raw.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		seconds := func(option int) (n int) {
			raw.Control(func(fd uintptr) { n, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option) })
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		const probes = 6 // TCP_KEEPCNT
		if after := seconds(syscall.TCP_KEEPIDLE) + seconds(probes)*seconds(syscall.TCP_KEEPINTVL); after > 300 {
			t.Errorf("TCP notices after %d s", after)
		}
		var on int
		raw.Control(func(fd uintptr) { on, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) })
		if err != nil || on != 1 {
			t.Errorf("TCP keepalive is off: %d %v", on, err)
		}
	}
}
