package admin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Who is in no group of the gateway's is told so, whatever the socket's mode lets through.
func TestOutsiderIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may become somebody else")
	}
	socket := filepath.Join(socketDir(t), "s")
	serve(t, &Server{Socket: socket})
	for _, path := range []string{filepath.Dir(socket), socket} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/v1/status", "/v1/clients", "/metrics", "/readyz", "/nothing"} {
		conn, err := dialAs(socket, 65534)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: gateway\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: no answer: %v", path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusForbidden || !resp.Close || !strings.Contains(string(body), "you may not") {
			t.Errorf("%s: %s %q, %v", path, resp.Status, body, err)
		}
	}
}

// dialAs connects as another user, in a group of that number.
func dialAs(socket string, id uintptr) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() { // ends with its thread, which is never anybody else again
		defer close(done)
		runtime.LockOSThread()
		for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			if _, _, no := unix.RawSyscall(call, id, id, id); no != 0 {
				err = no
				return
			}
		}
		conn, err = net.Dial("unix", socket)
	}()
	<-done
	return conn, err
}
