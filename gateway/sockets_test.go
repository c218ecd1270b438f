package gateway_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// Two hundred silent sockets take every file descriptor that there is. Nobody
// comes in meanwhile; afterwards a client does, within 2 s (N-03).
func TestSocketsTakeEveryDescriptor(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	g := startGateway(t, s.config, "prlimit", "--nofile=64:64")
	var silent []net.Conn
	for n := range 200 {
		conn, err := from(2+n).Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	waitFor(t, func() bool { return strings.Contains(g.log(t), "too many open files") })
	for _, conn := range silent {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	began := time.Now()
	press := s.listen(t, client.Options{TLS: s.tls(t, "", ""), ClientID: "p", CleanStart: true, Username: "press-1", Password: []byte(password)})
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("a login took %v", d)
	}
	press.publish(t, false, "plant/press-1/x")
}

// A gateway that was just installed listens for MQTT over TLS and for who asks
// after its health, both on this machine only, and for nothing else (N-26).
func TestFreshInstallListens(t *testing.T) {
	dir, port, health := t.TempDir(), freePort(t), freePort(t)
	if out, err := exec.Command(headgate(t), "init", "--dir", dir, "--id", "fresh").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, "headgate.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), ":8883", fmt.Sprint(":", port)) + fmt.Sprintf("\nadmin: {address: \"127.0.0.1:%d\"}\n", health)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, file)
	want := []string{fmt.Sprintf("tcp 0100007F:%04X", port), fmt.Sprintf("tcp 0100007F:%04X", health)}
	slices.Sort(want)
	var got []string
	waitFor(t, func() bool { // health may be asked a moment later than clients are served
		got = ports(t, g.Process.Pid)
		slices.Sort(got)
		return len(got) >= len(want)
	})
	if !slices.Equal(got, want) {
		t.Errorf("it listens on %v, want %v", got, want)
	}
}

// ports are the network addresses at which a process takes what comes.
func ports(t *testing.T, pid int) (all []string) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatal(fds, err)
	}
	mine := map[string]bool{}
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil {
			mine[name] = true
		}
	}
	for proto, taking := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07", "raw": "07", "raw6": "07"} {
		table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, proto))
		if err != nil {
			continue // this system has none of that family
		}
		for _, line := range strings.Split(string(table), "\n")[1:] {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == taking && mine["socket:["+f[9]+"]"] {
				all = append(all, proto+" "+f[1])
			}
		}
	}
	return all
}
