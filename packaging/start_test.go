package packaging_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The service's user starts the gateway with the configuration as shipped, as systemd
// would: it makes its keys, says READY=1 and ends on SIGTERM.
func TestFirstStart(t *testing.T) {
	r := newRoot(t)
	r.dpkg("--install", build(t, "v1.0.0", ""))
	// 127.0.0.1:8883 of this machine may be taken; the rest of 127.0.0.0/8 is free.
	conf := "/etc/headgate/headgate.yaml"
	address := fmt.Sprintf("127.%d.%d.%d:8883", 1+rand.N(254), rand.N(256), 1+rand.N(254))
	r.write(conf, bytes.ReplaceAll(r.read(conf), []byte("127.0.0.1:8883"), []byte(address)))
	uid := r.serviceUser()
	for _, dir := range []string{"/var/lib/headgate", "/run/headgate"} {
		r.makeDir(dir, uid)
	}
	notify := listenNotify(t, filepath.Join(r.dir, "/run/headgate/notify"), uid)

	var log bytes.Buffer
	cmd := r.command("/usr/bin/headgate", "run", "--config", conf)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: true}
	cmd.Env = []string{"NOTIFY_SOCKET=/run/headgate/notify", "STATE_DIRECTORY=/var/lib/headgate", "RUNTIME_DIRECTORY=/run/headgate"}
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }() // ends with the process, which the next lines end
	ready := make(chan error, 1)
	go func() { ready <- waitReady(notify) }() // ends with the deadline of notify

	select {
	case err := <-ready:
		if err != nil {
			t.Errorf("wait for READY=1: %v", err)
		}
	case err := <-exited:
		t.Fatalf("the gateway ended before READY=1: %v\n%s", err, &log)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stop: %v", err)
	}
	kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	defer kill.Stop()
	if err := <-exited; err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	r.checkKeys()
	if t.Failed() {
		t.Logf("log of the gateway:\n%s", &log)
	}
}

func listenNotify(t *testing.T, path string, uid uint32) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := os.Chown(path, int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func waitReady(conn *net.UnixConn) error {
	message := make([]byte, 4096)
	for {
		n, err := conn.Read(message)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(message[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

func (r root) serviceUser() uint32 {
	r.t.Helper()
	for uid, name := range r.userNames() {
		if name == "headgate" {
			return uid
		}
	}
	r.t.Fatal("no user headgate in /etc/passwd")
	return 0
}

// makeDir does what StateDirectory= and RuntimeDirectory= do.
func (r root) makeDir(path string, uid uint32) {
	r.t.Helper()
	path = filepath.Join(r.dir, path)
	if err := os.MkdirAll(path, 0o700); err != nil {
		r.t.Fatal(err)
	}
	// The parents are open to the service's user.
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chown(path, int(uid), int(uid)); err != nil {
		r.t.Fatal(err)
	}
}

// checkKeys wants private keys in the state folder, and nobody but their owner to read them.
func (r root) checkKeys() {
	r.t.Helper()
	keys := 0
	err := filepath.WalkDir(filepath.Join(r.dir, "/var/lib/headgate"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if bytes.Contains(read(r.t, path), []byte("PRIVATE KEY-----")) {
			keys++
			if info.Mode().Perm() != 0o600 {
				r.t.Errorf("%s has mode %v, want 0600", path, info.Mode())
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if keys == 0 {
		r.t.Error("the first start made no private key in /var/lib/headgate")
	}
}
