package admin

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
)

// Whoever opens connections and says nothing gets so many, on either listener.
func TestConnectionsAreBounded(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(socketDir(t), "s")
			}
			ln, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewUnstartedServer(http.NotFoundHandler())
			srv.Listener.Close()
			srv.Listener = bound(ln)
			srv.Start()
			defer srv.Close()
			dial := func() net.Conn {
				conn, err := net.Dial(network, ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				return conn
			}
			first := dial()
			for range maxCallers - 1 {
				defer dial().Close()
			}
			extra := dial()
			defer extra.Close()
			if _, err := extra.Read(make([]byte, 1)); err == nil {
				t.Error("one more was not closed")
			}
			first.Close()
			for { // until the server has seen the end of first
				next := dial()
				next.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
				answer, _ := io.ReadAll(next) // closed at once: no answer
				next.Close()
				if len(answer) > 0 {
					return
				}
				if t.Context().Err() != nil {
					t.Fatal("no room came free")
				}
			}
		})
	}
}

func TestBothListenersAreBounded(t *testing.T) {
	socket := filepath.Join(socketDir(t), "s")
	serve(t, &Server{Socket: socket})
	var conns []net.Conn
	for range maxCallers {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	if _, err := GetStatus(t.Context(), socket); err == nil {
		t.Error("answered one more")
	}
	for _, c := range conns {
		c.Close()
	}
}

func TestHostOfTheRequest(t *testing.T) {
	h := toLoopback(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:9883": 200, "127.0.0.1": 200, "127.9.9.9:1": 200, "[::1]:9883": 200, "[::1]": 200,
		"localhost:9883": 200, "LocalHost": 200,
		"": 421, "evil.example": 421, "evil.example:9883": 421, "localhost.evil.example": 421,
		"127.0.0.1.evil.example": 421, "192.168.1.1:9883": 421, "0.0.0.0:9883": 421, "[::]:9883": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("host %q: %d, want %d", host, w.Code, want)
		}
	}
}
