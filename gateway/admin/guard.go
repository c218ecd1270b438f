package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
)

// maxCallers is how many connections a listener has open at once. One more is
// closed at once: any local account reaches the TCP one, and must not use up
// the file descriptors that devices need.
const maxCallers = 64

// bounded accepts at most maxCallers connections at once. Room is made when one
// is closed.
type bounded struct {
	net.Listener
	room chan struct{} // one entry for each open connection
}

func bound(ln net.Listener) bounded {
	return bounded{ln, make(chan struct{}, maxCallers)}
}

func (b bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.room <- struct{}{}:
			return &guest{Conn: conn, leave: sync.OnceFunc(func() { <-b.room })}, nil
		default:
			conn.Close()
		}
	}
}

// A guest gives its room back when it is closed.
type guest struct {
	net.Conn
	leave func()
}

func (g *guest) Close() error {
	defer g.leave()
	return g.Conn.Close()
}

// toLoopback refuses requests for another host than this one: a page in a
// browser on this machine whose name was made to point here would otherwise
// read what is not its own.
func toLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.Host) {
			http.Error(w, "ask for 127.0.0.1, [::1] or localhost: no other host is served here", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback takes a host with or without port.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
