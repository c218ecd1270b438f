package sdk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/plugins/sdk"
	"github.com/headgate-io/headgate/plugins/sdk/wire"
)

// TestMain lets the test binary be the plugin.
func TestMain(m *testing.M) {
	if os.Getenv("PLAY_PLUGIN") != "" {
		sdk.Serve("scale", newScale)
		return
	}
	os.Exit(m.Run())
}

func plugin(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append([]string{"PLAY_PLUGIN=1"}, env...)
	return cmd
}

func TestStartedByHand(t *testing.T) {
	cmd := plugin(t)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("ended with %v", err)
	}
	for _, want := range []string{"started by the gateway, not by hand", "/usr/lib/headgate/plugins", "adapter: scale"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it says %q; want %q in it", out, want)
		}
	}
}

// The end of standard input is the end of the gateway.
func TestEndsWithStandardInput(t *testing.T) {
	cmd := plugin(t,
		wire.Handshake.MagicCookieKey+"="+wire.Handshake.MagicCookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_UNIX_SOCKET_DIR="+t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, len("1|1|unix|"))
	if _, err := io.ReadFull(stdout, ready); err != nil || string(ready) != "1|1|unix|" {
		t.Fatalf("handshake begins %q, %v; stderr %q", ready, err, stderr.String())
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v; stderr %q", err, stderr.String())
	}
}
