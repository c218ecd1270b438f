package plugin

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playGateway opens a session, prints the plugin's process id and waits to be
// killed.
func playGateway() {
	s, err := New(Config{
		Path:       os.Getenv("PLAY_GATEWAY"),
		Device:     "press",
		RuntimeDir: os.Getenv("PLAY_RUNTIME_DIR"),
	}).Open(context.Background())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(pidOf(s))
	select {}
}

// liar ignores its standard input and so proves the parent death signal.
func TestNoOrphanAfterTheGatewayIsKilled(t *testing.T) {
	for _, name := range []string{"liar", "probe"} {
		t.Run(name, func(t *testing.T) {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			gateway := exec.Command(exe)
			gateway.Env = append(os.Environ(), "PLAY_GATEWAY="+install(t, name), "PLAY_RUNTIME_DIR="+t.TempDir())
			out, err := gateway.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := gateway.Start(); err != nil {
				t.Fatal(err)
			}
			defer gateway.Wait()
			defer gateway.Process.Kill()
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatalf("the gateway says %q", line)
			}
			fd := pidfd(t, pid)
			if err := gateway.Process.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waitEnd(t, fd, time.Second)
		})
	}
}
